//! CBOR messages on a byte stream: the length as four bytes, little-endian, then so many bytes.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::MESSAGE_BYTES_MAX;

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub enum MessageStreamError {
    /// The stream failed or ended within a message.
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    /// The peer announces more than is allowed.
    #[error("a message of {bytes} bytes; at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLong {
        /// What was announced.
        bytes: usize,
    },
}

/// The bytes of the next message; `None` when the stream ended before one began.
///
/// # Errors
/// [`MessageStreamError`].
pub async fn read_message(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
) -> Result<Option<Vec<u8>>, MessageStreamError> {
    let mut length = [0; 4];
    let first = stream.read(&mut length).await?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[first..]).await?;
    let bytes = u32::from_le_bytes(length) as usize;
    if bytes > MESSAGE_BYTES_MAX {
        return Err(MessageStreamError::TooLong { bytes });
    }
    let mut message = vec![0; bytes];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes one message, in one go.
///
/// # Errors
/// Whatever the stream says.
pub async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin + ?Sized),
    message: &[u8],
) -> std::io::Result<()> {
    let length = u32::try_from(message.len())
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::FileTooLarge))?;
    let bytes = [&length.to_le_bytes(), message].concat();
    stream.write_all(&bytes).await?;
    stream.flush().await
}
