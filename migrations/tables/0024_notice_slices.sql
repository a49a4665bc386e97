alter table notices rename to notice_slices
