create index outbox_by_subject on outbox (subject_id)
