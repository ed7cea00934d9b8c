"""Take swap receipts: load a version, score its probes with and without it, judge, store (D3)."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.domain.ports import AdapterHost, HostInfo
from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.rollout.receipt_figures import (
    MeasuredProbes,
    Probe,
    ProbeFile,
    ReceiptFigures,
    judge_receipt,
)
from adaptd.daemon.store.lifecycle.adapter_seal import broken_seal
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.daemon.wire.errors import HostError
from adaptd.daemon.wire.files import read_regular
from adaptd.daemon.wire.texts import NOT_DECODED

PROBES_FILE = "probes.json"
_ATTEMPTS = 3  # other requests share the host's steps and change its rounding; a fault stays

_log = structlog.get_logger(__name__)


class ReceiptService:
    """One receipt per version and process of the host; implements `ReceiptCheck`."""

    def __init__(
        self, host: AdapterHost, receipts: ReceiptStore, adapters: AdapterStore, *, base_dir: Path
    ) -> None:
        self._host = host
        self._receipts = receipts
        self._adapters = adapters
        self._base_dir = base_dir
        self._one_at_a_time = asyncio.Lock()  # two askers of one version: the second finds it done

    async def check(self, name: str) -> Receipt:
        """See `ReceiptCheck`. Takes seconds where the receipt is new.

        Raises:
            HostError: the host is away, refuses the version, or was restarted meanwhile.
            RefusedError: there is no such version.
        """
        async with self._one_at_a_time:
            info = await self._host.describe()
            row = await self._adapters.get(name)
            if known := await self._receipts.get(name, info.instance):
                if known.passed and name not in await self._host.loaded():
                    await self._host.load(name, Path(row.path))
                return known
            figures = await self._take_figures(row, info)
            return await self._store_receipt(name, info, figures)

    async def _take_figures(self, row: AdapterRow, info: HostInfo) -> ReceiptFigures:
        served = await asyncio.to_thread(base_digest, self._base_dir)
        if row.base_digest != served:
            trained, running = row.base_digest[:8], served[:8]
            return ReceiptFigures(reason=f"trained on base {trained}, the host serves {running}")
        if (broken := await asyncio.to_thread(broken_seal, row)) is not None:
            return ReceiptFigures(reason=broken)
        try:
            probes = await asyncio.to_thread(_read_probes, Path(row.path))
        except (OSError, *NOT_DECODED) as error:
            return ReceiptFigures(reason=f"its probes cannot be read ({error})")
        await self._host.load(row.name, Path(row.path))
        figures = ReceiptFigures(reason="it was not measured")
        for attempt in range(1, _ATTEMPTS + 1):
            measured = await self._measure_probes(row.name, probes)
            if (await self._host.describe()).instance != info.instance:
                problem = f"the host restarted while {row.name} was measured"
                raise HostError("receipt", problem, "It is tried again")
            figures = judge_receipt(probes, measured)
            if figures.passed:
                break
            _log.warning(
                "receipt_refused", adapter=row.name, attempt=attempt, **msgspec.to_builtins(figures)
            )
        return figures

    async def _measure_probes(self, name: str, probes: list[Probe]) -> MeasuredProbes:
        sequences = [probe.ids for probe in probes]
        return MeasuredProbes(
            base=await self._host.logprobs(None, sequences),
            base_again=await self._host.logprobs(None, sequences),
            adapter=await self._host.logprobs(name, sequences),
        )

    async def _store_receipt(self, name: str, info: HostInfo, figures: ReceiptFigures) -> Receipt:
        receipt = Receipt(
            adapter=name,
            instance=info.instance,
            passed=figures.passed,
            reason=figures.reason,
            slope=figures.slope,
            residual_ratio=figures.residual_ratio,
            effect_ratio=figures.effect_ratio,
            report=msgspec.to_builtins(figures),
            created_at=datetime.now(UTC),
        )
        _log.info("receipt_taken", adapter=name, instance=info.instance, **receipt.report)
        return await self._receipts.add(receipt)


def _read_probes(directory: Path) -> list[Probe]:
    text = read_regular(directory / PROBES_FILE)
    return msgspec.json.decode(text, type=ProbeFile).probes
