alter table webhook_deliveries add column again_by blob
