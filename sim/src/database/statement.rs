//! What is asked of the database, and what it says.

/// What is asked of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    Begin,
    Commit,
    Rollback,
    /// Reads a session that is not ended, and locks it so that others can do the same.
    HoldSession(i64),
    /// The same, if it is the lead's.
    HoldLead(i64),
    /// Moves the end of the journal by so many places, and says where it is then.
    TakePlaces(i64),
    Insert {
        place: i64,
        product: i64,
        first: i64,
    },
    /// A session that starts as an owner.
    Join(i64),
    /// The heart of a session, which has not beaten yet.
    FirstBeat(i64),
    /// An owner becomes the lead.
    Lead(i64),
    Beat(i64),
    /// Looks whether a session is not ended, and locks nothing.
    Lives(i64),
    /// Ends a session whose beat is still this one.
    Seal {
        session: i64,
        beat: i64,
    },
    /// Gives a shard to a session, under the next epoch, if this is its epoch.
    Give {
        shard: i64,
        session: i64,
        epoch: i64,
    },
    /// Moves the flush's checkpoint.
    Pass {
        from: i64,
        to: i64,
    },
    /// The last sequence of a product.
    Head(i64),
    End,
    /// How far the flush has come.
    Passed,
    Sessions,
    Shards,
    Entries,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// So many rows.
    Done(u64),
    Value(i64),
    Rows(Vec<[i64; 3]>),
    /// A key stands there already.
    Duplicate,
    /// Two waited for each other.
    Circle,
    /// The connection was ended.
    Lost,
}
