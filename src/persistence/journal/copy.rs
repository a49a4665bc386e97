//! The log of a journal that another process may be writing, for whoever copies it.
//!
//! Always true: everything that was acknowledged before the look is in what is found, in the log or in `journal.db`, and
//! it continues the file without a gap.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{archive, segment};
use crate::domain::stock::Entry;
use crate::persistence::StoreError;
use crate::persistence::sql::{self, Connection};

/// A file that is begun anew, or used again, while it is read shows a gap: then one looks again.
const LOOKS_MAX: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

const BEGIN: &str = "begin";
const UNDO: &str = "rollback";
const LAST_POS: &str = "select coalesce(max(pos), 0) from journal";

/// What the log in `dir` holds behind what `file`, a reader of `journal.db`, sees from now on: a transaction is begun on it. The log
/// first: what has left it before we look is in the file by then.
pub async fn log_behind(dir: &Path, file: &mut Connection) -> Result<Vec<(i64, Entry)>, StoreError> {
    let mut looks = 0;
    loop {
        let told = match at_rest(dir) {
            Ok(log) => {
                sql::query(BEGIN).execute(&mut *file).await?;
                let archived: i64 = sql::query_scalar(LAST_POS).fetch_one(&mut *file).await?;
                match archive::behind(archived, log) {
                    Ok(log) => return Ok(log),
                    Err(error) => {
                        sql::query(UNDO).execute(&mut *file).await?;
                        error
                    }
                }
            }
            Err(error) => error,
        };
        looks += 1;
        if looks == LOOKS_MAX {
            return Err(StoreError::Log(told));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// All that the log holds, if its files are the same before and afterwards.
fn at_rest(dir: &Path) -> io::Result<Vec<(i64, Entry)>> {
    let left = segment::left_in(dir)?;
    let log = segment::read_all(&left)?;
    match segment::left_in(dir)? == left {
        true => Ok(log),
        false => Err(io::Error::other("the files of the log change while they are read")),
    }
}
