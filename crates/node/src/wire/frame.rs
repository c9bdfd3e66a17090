//! Frames on a byte stream: the length as four bytes, little-endian, then so many bytes.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that are allocated before any of a frame's content has come: a length is only a claim.
const TRUSTED_BYTES: usize = 64 << 10;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The stream failed or ended within a frame.
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    /// The peer announces more than is allowed.
    #[error("a frame of {bytes} bytes where at most {bytes_max} are allowed")]
    TooLong {
        /// What was announced.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// There is no room for it now.
    #[error("no room for a frame of {bytes} bytes")]
    NoRoom {
        /// What was announced.
        bytes: usize,
    },
}

/// The next frame; `None` when the stream ended before one began.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, FrameError> {
    read_frame_if(stream, bytes_max, |_| true).await
}

/// [`read_frame`], if `has_room` for so many bytes says yes.
pub(crate) async fn read_frame_if(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
    has_room: impl FnOnce(usize) -> bool,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    let first = stream.read(&mut length).await?;
    if first == 0 {
        return Ok(None);
    }
    if let Some(rest) = length.get_mut(first..) {
        stream.read_exact(rest).await?;
    }
    let bytes = u32::from_le_bytes(length) as usize;
    if bytes > bytes_max {
        return Err(FrameError::TooLong { bytes, bytes_max });
    }
    if !has_room(bytes) {
        return Err(FrameError::NoRoom { bytes });
    }
    let mut frame = Vec::with_capacity(bytes.min(TRUSTED_BYTES));
    let read = stream.take(bytes as u64).read_to_end(&mut frame).await?;
    if read < bytes {
        return Err(FrameError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(frame))
}

/// Writes frames in one go. Each must be shorter than 4 GiB, which ours are.
pub(crate) async fn write_frames(
    stream: &mut (impl AsyncWrite + Unpin),
    frames: &[Vec<u8>],
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(frames.iter().map(|frame| frame.len() + 4).sum());
    for frame in frames {
        let length = u32::try_from(frame.len())
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::FileTooLarge))?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(frame);
    }
    stream.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        let mut stream = bytes;
        read_frame(&mut stream, 100).await
    }

    #[tokio::test]
    async fn frames_come_back_and_broken_ones_are_errors() {
        let mut bytes = Vec::new();
        let frames = [b"one".to_vec(), Vec::new(), vec![7; 100]];
        write_frames(&mut bytes, &frames).await.unwrap();
        let mut stream = bytes.as_slice();
        for frame in &frames {
            let read = read_frame(&mut stream, 100).await.unwrap();
            assert_eq!(read.as_ref(), Some(frame));
        }
        assert!(read_frame(&mut stream, 100).await.unwrap().is_none());

        assert!(matches!(read(&[1]).await, Err(FrameError::Broken(_))));
        assert!(matches!(
            read(&[5, 0, 0, 0, 1]).await,
            Err(FrameError::Broken(_))
        ));
        assert!(matches!(
            read(&[101, 0, 0, 0]).await,
            Err(FrameError::TooLong { bytes: 101, .. })
        ));
        assert!(matches!(
            read(&[255; 8]).await,
            Err(FrameError::TooLong { .. })
        ));
    }
}
