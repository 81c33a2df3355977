//! Bytes, both ways, counted.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const BUFFER: usize = 16 << 10;

/// Counts what has passed, so that a connection cut off is counted too.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// From the caller.
    pub(crate) forth: AtomicU64,
    /// To the caller.
    pub(crate) back: AtomicU64,
}

/// Copies until both ends have said they are done, or either breaks. Half-closes are passed on.
pub(crate) async fn both(
    caller: impl AsyncRead + AsyncWrite + Unpin,
    callee: impl AsyncRead + AsyncWrite + Unpin,
    passed: &Passed,
) -> io::Result<()> {
    let (mut from_caller, mut to_caller) = tokio::io::split(caller);
    let (mut from_callee, mut to_callee) = tokio::io::split(callee);
    tokio::try_join!(
        one_way(&mut from_caller, &mut to_callee, &passed.forth),
        one_way(&mut from_callee, &mut to_caller, &passed.back),
    )?;
    Ok(())
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return to.shutdown().await;
        };
        to.write_all(bytes).await?;
        to.flush().await?;
        passed.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
