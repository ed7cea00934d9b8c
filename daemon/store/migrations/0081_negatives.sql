-- Feedback that speaks against its answer: a correction, or a rating below 0. Guard, triggers and status all ask this macro.
CREATE MACRO is_negative(kind, "value") AS kind = 'correction' OR (kind = 'rating' AND "value" < 0);
