//! A request that never ends: it waits for a lock that it holds itself.

use axum::http::StatusCode;
use tokio::sync::Mutex;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/hang";

pub(crate) async fn hang() -> StatusCode {
    let accounts = Mutex::new(());
    let _held = accounts.lock().await;
    await_lock(&accounts).await;
    StatusCode::NO_CONTENT
}

async fn await_lock(accounts: &Mutex<()>) {
    let _held = accounts.lock().await;
}
