//! Owns how messages are cut out of a stream: a length of four bytes, little-endian, then the bytes.

use std::time::Duration;

use iroh::endpoint::{ReadExactError, RecvStream, SendStream, WriteError};
use tokio::time::timeout;

/// How long the rest of a message may take once its length is there, and how long a message may
/// take to be written. A peer that reads or sends slower than that is as good as gone: the largest
/// message takes a second at 64 KB/s.
pub(crate) const TRANSFER_MAX: Duration = Duration::from_secs(10);

const LENGTH_BYTES: usize = 4;

/// Why no message came or went.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("it sent a message of {bytes} bytes where at most {bytes_max} are allowed")]
    TooLong { bytes: u32, bytes_max: usize },
    #[error("it sent nothing in time")]
    SlowSender,
    #[error("it does not read what is sent to it")]
    SlowReader,
    #[error("it ended the stream within a message")]
    Torn,
    #[error("the stream ended: {0}")]
    Ended(String),
}

/// Reads one message of at most `bytes_max`; `None` at the end of the stream.
pub(crate) async fn read(
    stream: &mut RecvStream,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; LENGTH_BYTES];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(ReadExactError::FinishedEarly(_)) => return Err(FrameError::Torn),
        Err(ReadExactError::ReadError(error)) => return Err(FrameError::Ended(error.to_string())),
    }
    let mut message = vec![0; length_of(length, bytes_max)?];
    match timeout(TRANSFER_MAX, stream.read_exact(&mut message)).await {
        Ok(Ok(())) => Ok(Some(message)),
        Ok(Err(ReadExactError::FinishedEarly(_))) => Err(FrameError::Torn),
        Ok(Err(ReadExactError::ReadError(error))) => Err(FrameError::Ended(error.to_string())),
        Err(_) => Err(FrameError::SlowSender),
    }
}

/// The length of the message to come, before anything of that length is allocated.
fn length_of(header: [u8; LENGTH_BYTES], bytes_max: usize) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(header);
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if length > bytes_max {
        return Err(FrameError::TooLong { bytes, bytes_max });
    }
    Ok(length)
}

/// Reads one message that must come within `deadline`.
pub(crate) async fn read_within(
    stream: &mut RecvStream,
    bytes_max: usize,
    deadline: Duration,
) -> Result<Vec<u8>, FrameError> {
    match timeout(deadline, read(stream, bytes_max)).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(FrameError::Torn),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(FrameError::SlowSender),
    }
}

/// Writes one message within [`TRANSFER_MAX`].
pub(crate) async fn write(stream: &mut SendStream, message: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + message.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(message);
    match timeout(TRANSFER_MAX, stream.write_all(&bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(WriteError::Stopped(_))) => Err(FrameError::SlowReader),
        Ok(Err(error)) => Err(FrameError::Ended(error.to_string())),
        Err(_) => Err(FrameError::SlowReader),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_length_beyond_the_limit_is_believed(header in any::<[u8; LENGTH_BYTES]>(), bytes_max in 0usize..1 << 20) {
            let said = usize::try_from(u32::from_le_bytes(header)).unwrap();
            match length_of(header, bytes_max) {
                Ok(length) => prop_assert!(length == said && length <= bytes_max),
                Err(_) => prop_assert!(said > bytes_max),
            }
        }
    }
}
