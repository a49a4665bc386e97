create index users_by_state on users (state, created_at_ms)
