"""The Kafka consumer: the Faust app, its topics, its halts.

The order of an event from fetch to stored row:

1. `fetch_thread.FetchThread`: aiokafka fetches; `batch_bounds` replaces each batch that unpacks to
   more than 32 MiB with one record that becomes a dead letter.
2. `faust_app.ChunkConsumer.getmany`: where a partition was not found, asks whether the topic is
   still the same one (`topic_identity`); cuts the records to chunks of 4 MiB; waits until no more
   than 48 MiB wait (`memory_budget`).
3. The agent of `faust_app.build_app`: groups chunks to transactions of 16 MiB.
4. `chunk_reader.ChunkReader.accept`, on the decoder's thread: `decoding.records` finds the sender
   of each record, `decoding.decode` makes rows and dead letters.
5. `EventSink.write` (`daemon.store.ingest`): rows, dead letters and offsets, in one transaction.
6. `memory_budget.MemoryBudget` gets the bytes back; `service.IngestService` commits the offsets to
   Kafka within a second, for lag tools only: reading begins from the store's offsets (D7).
"""
