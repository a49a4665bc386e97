alter table deliveries add column reason_sealed blob
