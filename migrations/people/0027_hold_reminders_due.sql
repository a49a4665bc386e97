create index hold_reminders_due on hold_reminders (due_at_ms)
