# The database's image runs this once, as administrator, on a volume that is new: the user of the nodes, who reads and writes rows and may do no
# more (docs/operating.md). Whoever owns the tables is `MYSQL_USER`, and made by the image.
docker_process_sql << SQL
create user stockade identified by '${NODE_PASSWORD:?}';
grant select, insert, update, delete on stockade.* to stockade;
SQL
