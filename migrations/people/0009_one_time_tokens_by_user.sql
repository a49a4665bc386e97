create index one_time_tokens_by_user on one_time_tokens (user_id, purpose)
