//! Frames on a byte stream: the header says how much follows.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::frame::{self, HEADER_BYTES};
use super::{Frame, FrameFormat, WireError};

/// Bytes that are allocated before any of a frame's content has come: a length is only a claim.
const TRUSTED_BYTES: usize = 64 << 10;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameStreamError {
    /// The stream failed or ended within a frame.
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    /// What came is no frame of this ring.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The next frame; `None` when the stream ended before one began.
///
/// # Errors
/// [`FrameStreamError`].
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    format: &FrameFormat,
) -> Result<Option<Frame>, FrameStreamError> {
    let mut header = [0; HEADER_BYTES];
    let first = stream.read(&mut header).await?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[first..]).await?;
    let header = frame::Header::read(&header, format)?;
    // The header was checked, so this fits.
    let bytes = usize::try_from(header.body_bytes()).map_err(|_| WireError::Magic)?;
    let mut body = Vec::with_capacity(bytes.min(TRUSTED_BYTES));
    let read = stream.take(bytes as u64).read_to_end(&mut body).await?;
    if read < bytes {
        return Err(FrameStreamError::Broken(ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(header.frame(&body)?))
}
