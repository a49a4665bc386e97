alter table sessions add column device_sealed blob
