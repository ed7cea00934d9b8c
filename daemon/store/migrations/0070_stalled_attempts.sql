-- How many training children in a row got no further than `furthest_step`, the last that any of them reported.
ALTER TABLE runs ADD COLUMN stalled INTEGER DEFAULT 0;
ALTER TABLE runs ADD COLUMN furthest_step INTEGER DEFAULT 0;
