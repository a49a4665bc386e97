//! A real database with the tables of the model, and connections that ask it one thing at a time.

use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions, Executor, Row};
use stockade_servers::MariaDb;
use stockade_sim::database::{Answer, Statement};
use tokio::sync::mpsc;

pub const SHARDS: i64 = 2;
pub const PRODUCTS: i64 = 2;
const TABLES: [&str; 7] = [
    "create or replace table node_sessions (number bigint not null, active bigint, \
     constraint node_sessions_key primary key (number), constraint node_sessions_active unique (active))",
    "create or replace table node_beats (number bigint primary key, beat bigint not null)",
    "create or replace table shards (shard bigint primary key, session bigint not null, epoch bigint not null)",
    "create or replace table journal_end (id bigint primary key, pos bigint not null)",
    "create or replace table journal (pos bigint primary key, product_id bigint not null, first_seq bigint not null, \
     constraint journal_no_fork unique (product_id, first_seq))",
    "create or replace table flush_checkpoint (id bigint primary key, pos bigint not null)",
    "insert into journal_end values (1, 0); insert into flush_checkpoint values (1, 0); \
     insert into shards values (0, 0, 0), (1, 0, 0)",
];
const READ_COMMITTED: &str = "set session transaction isolation level read committed";
// Never `active = 1` or `active is not null` by itself: the server may go by the unique key of `active`, and wait for the rows of other
// sessions.
const HOLD_SESSION: &str =
    "select number from node_sessions where number = ? and coalesce(active, 0) <> 0 lock in share mode";
const HOLD_LEAD: &str =
    "select number from node_sessions where number = ? and coalesce(active, 0) = 1 lock in share mode";
const TAKE_PLACES: &str = "update journal_end set pos = last_insert_id(pos + ?) where id = 1";
const INSERT: &str = "insert into journal (pos, product_id, first_seq) values (?, ?, ?)";
const JOIN: &str = "insert into node_sessions (number, active) values (?, ?)";
const FIRST_BEAT: &str = "insert into node_beats (number, beat) values (?, 0)";
const LEAD: &str = "update node_sessions set active = 1 where number = ? and coalesce(active, 0) < 0";
const BEAT: &str = "update node_beats set beat = beat + 1 where number = ?";
const LIVES: &str = "select number from node_sessions where number = ? and active is not null";
const SEAL: &str = "update node_sessions join node_beats using (number) set active = null, beat = beat + 1 \
    where number = ? and beat = ? and coalesce(active, 0) <> 0";
const GIVE: &str = "update shards set session = ?, epoch = epoch + 1 where shard = ? and epoch = ?";
const PASS: &str = "update flush_checkpoint set pos = ? where id = 1 and pos = ?";
const HEAD: &str = "select cast(coalesce(max(first_seq), 0) as signed) from journal where product_id = ?";
const END: &str = "select pos from journal_end where id = 1";
const PASSED: &str = "select pos from flush_checkpoint where id = 1";
const SESSIONS: &str = "select number, coalesce(active, 0), beat from node_sessions join node_beats using (number) \
    order by number";
const ROWS: &str = "select shard, session, epoch from shards order by shard";
const ENTRIES: &str = "select pos, product_id, first_seq from journal order by pos";
const WAITS: &str = "select cast(variable_value as signed) from information_schema.global_status \
    where variable_name = 'innodb_row_lock_current_waits'";
const THERE: &str = "select cast(count(*) as signed) from information_schema.processlist where id = ?";

pub struct Server {
    _database: MariaDb,
    options: MySqlConnectOptions,
    keeper: MySqlConnection,
}

/// What a connection is to do.
enum Order {
    Ask(Statement),
    /// Sends COMMIT, and is lost without having heard.
    LoseCommit,
}

/// A connection of a node, as whoever waits for its answer sees it.
pub struct Client {
    pub id: i64,
    orders: mpsc::UnboundedSender<Order>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Server {
    pub async fn start() -> Server {
        let database = MariaDb::started().await.unwrap();
        let options: MySqlConnectOptions = database.url().parse().unwrap();
        let keeper = options.connect().await.unwrap();
        Server { _database: database, options, keeper }
    }

    /// Empty tables.
    pub async fn clear(&mut self) {
        for text in TABLES {
            self.keeper.execute(sqlx::raw_sql(text)).await.unwrap();
        }
    }

    pub async fn client(&self) -> Client {
        let mut connection = self.options.connect().await.unwrap();
        connection.execute(READ_COMMITTED).await.unwrap();
        let row = connection.fetch_one("select cast(connection_id() as signed)").await.unwrap();
        let ((orders, mut ordered), (answer, answers)) =
            (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        tokio::spawn(async move {
            while let Some(Order::Ask(statement)) = ordered.recv().await {
                let told = told(&mut connection, statement).await;
                let lost = told == Answer::Lost;
                if answer.send(told).is_err() || lost {
                    return;
                }
            }
            // The first look at it sends it; nobody reads what comes back.
            let _ = tokio::time::timeout(Duration::ZERO, connection.execute("commit")).await;
        });
        Client { id: row.get(0), orders, answers }
    }

    /// Ends a connection, and waits until it is gone with what it had left open.
    pub async fn kill(&mut self, client: i64) {
        let _ = sqlx::query("kill ?").bind(client).execute(&mut self.keeper).await;
        self.until_gone(client).await;
    }

    pub async fn until_gone(&mut self, client: i64) {
        while sqlx::query(THERE).bind(client).fetch_one(&mut self.keeper).await.unwrap().get::<i64, _>(0) > 0
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many wait for somebody's lock.
    pub async fn waiting(&mut self) -> usize {
        self.keeper.fetch_one(WAITS).await.unwrap().get::<i64, _>(0) as usize
    }

    /// Committed rows, as anybody sees them.
    pub async fn told(&mut self, statement: Statement) -> Answer {
        told(&mut self.keeper, statement).await
    }
}

impl Client {
    pub fn ask(&self, statement: Statement) {
        let _ = self.orders.send(Order::Ask(statement));
    }

    pub fn lose_commit(&self) {
        let _ = self.orders.send(Order::LoseCommit);
    }

    /// None: it did not answer so soon.
    pub async fn answer(&mut self, within: Duration) -> Option<Answer> {
        let waited = tokio::time::timeout(within, self.answers.recv()).await.ok()?;
        Some(waited.unwrap_or(Answer::Lost))
    }

    /// What it has answered already.
    pub fn early(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

async fn told(connection: &mut MySqlConnection, statement: Statement) -> Answer {
    match tried(connection, statement).await {
        Ok(answer) => answer,
        Err(error) => match error.as_database_error().and_then(|error| error.code()).as_deref() {
            Some("23000") => Answer::Duplicate,
            Some("40001") => Answer::Circle,
            _ => Answer::Lost,
        },
    }
}

async fn tried(connection: &mut MySqlConnection, statement: Statement) -> Result<Answer, sqlx::Error> {
    let query = match statement {
        Statement::Begin => return simple(connection, "begin").await,
        Statement::Commit => return simple(connection, "commit").await,
        Statement::Rollback => return simple(connection, "rollback").await,
        Statement::HoldSession(number) | Statement::HoldLead(number) | Statement::Lives(number) => {
            let text = match statement {
                Statement::HoldLead(_) => HOLD_LEAD,
                Statement::Lives(_) => LIVES,
                _ => HOLD_SESSION,
            };
            let found = sqlx::query(text).bind(number).fetch_all(connection).await?;
            return Ok(Answer::Done(found.len() as u64));
        }
        Statement::TakePlaces(count) => {
            let taken = sqlx::query(TAKE_PLACES).bind(count).execute(connection).await?;
            return Ok(Answer::Value(taken.last_insert_id() as i64));
        }
        Statement::Head(product) => {
            let row = sqlx::query(HEAD).bind(product).fetch_one(connection).await?;
            return Ok(Answer::Value(row.get(0)));
        }
        Statement::End => return Ok(Answer::Value(sqlx::query(END).fetch_one(connection).await?.get(0))),
        Statement::Passed => {
            return Ok(Answer::Value(sqlx::query(PASSED).fetch_one(connection).await?.get(0)));
        }
        Statement::Sessions => return rows(connection, SESSIONS).await,
        Statement::Shards => return rows(connection, ROWS).await,
        Statement::Entries => return rows(connection, ENTRIES).await,
        Statement::Insert { place, product, first } => {
            sqlx::query(INSERT).bind(place).bind(product).bind(first)
        }
        Statement::Join(number) => sqlx::query(JOIN).bind(number).bind(-number),
        Statement::FirstBeat(number) => sqlx::query(FIRST_BEAT).bind(number),
        Statement::Lead(number) => sqlx::query(LEAD).bind(number),
        Statement::Beat(number) => sqlx::query(BEAT).bind(number),
        Statement::Seal { session, beat } => sqlx::query(SEAL).bind(session).bind(beat),
        Statement::Give { shard, session, epoch } => sqlx::query(GIVE).bind(session).bind(shard).bind(epoch),
        Statement::Pass { from, to } => sqlx::query(PASS).bind(to).bind(from),
    };
    Ok(Answer::Done(query.execute(connection).await?.rows_affected()))
}

async fn simple(connection: &mut MySqlConnection, text: &'static str) -> Result<Answer, sqlx::Error> {
    connection.execute(text).await.map(|_| Answer::Done(0))
}

async fn rows(connection: &mut MySqlConnection, text: &'static str) -> Result<Answer, sqlx::Error> {
    let rows = sqlx::query(text).fetch_all(connection).await?;
    Ok(Answer::Rows(rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect()))
}
