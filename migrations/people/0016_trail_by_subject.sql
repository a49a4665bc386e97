create index trail_by_subject on trail (subject_id, sequence)
