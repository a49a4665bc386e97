//! How lost connections end, and which servers will do.

use super::super::{Trouble, trouble};
use super::*;
use crate::persistence::testing::new_database;

/// A server that has started again gives its numbers anew.
#[tokio::test]
async fn whoever_bears_the_number_of_a_lost_connection_is_not_ended_for_it() {
    let server = Server::at(&new_database().await).unwrap();
    let (mut clerk, mut other) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    let lost = Name { mark: Some((7, 0)), ..other.name() };
    assert!(end_one(&mut clerk, lost).await.unwrap(), "the lost one has gone");
    assert!(other.connection.ping().await.is_ok());
    let mut writer = server.of_node(7).connect().await.unwrap();
    assert_eq!(writer.name().mark, Some((7, 0)));
    for name in [writer.name(), other.name()] {
        assert!(end_one(&mut clerk, name).await.unwrap());
    }
    assert!(writer.connection.ping().await.is_err() && other.connection.ping().await.is_err());
}

#[tokio::test]
async fn rows_over_a_connection_that_is_heard_no_more_end() {
    let heard = stream::iter([Ok::<_, Error>(1), Ok(2)]).chain(stream::pending());
    let mut rows = each_within(10, heard.boxed());
    assert_eq!((rows.try_next().await.unwrap(), rows.try_next().await.unwrap()), (Some(1), Some(2)));
    let lost = rows.try_next().await.unwrap_err();
    assert_eq!(trouble(&lost), Trouble::Lost, "{lost}");
    assert_eq!(rows.try_next().await.unwrap(), None);
}

#[test]
fn servers_are_told_apart_by_what_they_say() {
    for fit in
        ["10.6.0-MariaDB", "10.11.19-MariaDB-0+deb12u1", "5.5.5-10.11.4-MariaDB-log", "8.0.36", "9.1.0"]
    {
        assert!(is_new_enough(fit), "{fit}");
    }
    for unfit in ["10.5.29-MariaDB", "5.5.5-10.3.1-MariaDB", "5.7.44-log", "eight"] {
        assert!(!is_new_enough(unfit), "{unfit}");
    }
}

#[test]
fn a_server_that_may_forget_or_cut_is_refused() {
    let found = |flush, binlog, sync, mode: &str, letters: &str| {
        let version = "10.11.19-MariaDB".to_owned();
        let (mode, letters) = (mode.to_owned(), letters.to_owned());
        Found { version, mode, letters, flush, binlog, sync }.fits().map_err(|unfit| unfit.to_string())
    };
    let mode = "STRICT_TRANS_TABLES,PIPES_AS_CONCAT";
    assert_eq!(found(1, 0, 0, mode, "utf8mb4"), Ok(()));
    assert_eq!(found(1, 1, 1, mode, "utf8mb4"), Ok(()));
    for (refused, told) in [
        (found(2, 0, 0, mode, "utf8mb4"), "innodb_flush_log_at_trx_commit = 1"),
        (found(1, 1, 0, mode, "utf8mb4"), "sync_binlog = 1"),
        (found(1, 0, 0, "PIPES_AS_CONCAT", "utf8mb4"), "STRICT_TRANS_TABLES"),
        (found(1, 0, 0, mode, "latin1"), "utf8mb4"),
    ] {
        let said = refused.unwrap_err();
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn a_clock_is_apart_by_what_the_way_does_not_explain() {
    for (there, before, after, apart) in
        [(100, 90, 110, 0), (100, 100, 100, 0), (100, 130, 170, 30), (100, 20, 60, -40), (100, 60, 100, 0)]
    {
        assert_eq!(ahead(there, before, after), apart, "{before} {after}");
    }
}

#[test]
fn an_address_names_a_database() {
    assert!(Server::at("mysql://somebody:secret@localhost:3306/shop?ssl-mode=REQUIRED").is_ok());
    let none = Server::at("mysql://localhost").map(drop);
    assert!(matches!(none, Err(StoreError::Unfit(Unfit::NoDatabase))));
}
