//! A store's file in somebody else's hands.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::Shop;

/// Whoever has it: nobody else writes to the file until it is let go.
pub struct Held(SqliteConnection);

impl Shop {
    /// Takes hold of one of the shop's files, such as `shop.db`.
    pub async fn hold(&self, file: &str) -> Held {
        let options = SqliteConnectOptions::new().filename(self.folder().join(file));
        let mut held = options.connect().await.unwrap();
        sqlx::query("begin immediate").execute(&mut held).await.unwrap();
        Held(held)
    }
}

impl Held {
    pub async fn let_go(mut self) {
        sqlx::query("rollback").execute(&mut self.0).await.unwrap();
        self.0.close().await.unwrap();
    }
}
