//! The token embedding: from tokens to the rows that the first layer takes.

use std::io::ErrorKind;
use std::path::Path;

use gguf::{ByteSource, EmbeddingScale, FileSource};

use super::{StageError, architecture};
use crate::TokenId;

/// Name of the tensor in GGUF files.
const TENSOR: &str = "token_embd.weight";
/// Widest row that is read, bytes: four times what the widest models have in 32-bit floats.
const ROW_BYTES_MAX: u64 = 1 << 20;

/// Looks tokens up in a GGUF file. Rows are read from the file when they are wanted (the system
/// keeps them in its cache), and turned into floats by ggml's own routine.
#[derive(Debug)]
pub struct EmbeddingTable {
    source: FileSource,
    /// Of the first row in the file.
    offset: u64,
    /// One row as it stands in the file.
    row: Vec<u8>,
    type_id: u32,
    width: usize,
    tokens: u64,
    scale: f32,
}

impl EmbeddingTable {
    /// Opens the table of the model at `path`: the whole model, or its last part if that has the
    /// tensor. Any file of a multi-part model stands for all.
    ///
    /// # Errors
    /// [`StageError::Embedding`] if the file can't be read, or has no such tensor.
    pub fn open(path: &Path) -> Result<Self, StageError> {
        let embedding = |e: &dyn std::fmt::Display| StageError::Embedding(e.to_string());
        let model = gguf::Model::open(path).map_err(|e| embedding(&e))?;
        let missing = format!("{} has no tensor {TENSOR}", path.display());
        let tensor = model.tensor(TENSOR).ok_or_else(|| embedding(&missing))?;
        let range = tensor.file_range().map_err(|e| embedding(&e))?;
        let row_bytes = tensor.info.row_bytes().map_err(|e| embedding(&e))?;
        let metadata = model.metadata();
        let architecture = architecture(&model).map_err(|e| embedding(&e))?;
        let width = metadata.embedding_length().map_err(|e| embedding(&e))?;
        if tensor.info.dims.first() != Some(&width.into()) || row_bytes > ROW_BYTES_MAX {
            return Err(embedding(&"its rows are not as wide as the model"));
        }
        let file = &model.parts()[tensor.part].name;
        Ok(Self {
            source: FileSource::open(file).map_err(|e| embedding(&e))?,
            offset: range.start,
            row: vec![0; row_bytes as usize],
            type_id: tensor.info.ggml_type.id(),
            width: width as usize,
            tokens: tensor.info.dims.get(1).copied().unwrap_or(1),
            // Rows enter behind the node in which llama.cpp scales them, whichever it scales.
            scale: match architecture.embedding_scale {
                EmbeddingScale::None => 1.0,
                EmbeddingScale::Tokens | EmbeddingScale::Everything => (width as f32).sqrt(),
            },
        })
    }

    /// Elements of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Replaces `rows` by the rows of `tokens`, one after the other, scaled as the model wants.
    ///
    /// # Errors
    /// [`StageError::Token`], or [`StageError::Embedding`] if the file can't be read any more.
    pub fn look_up(&mut self, tokens: &[TokenId], rows: &mut Vec<f32>) -> Result<(), StageError> {
        rows.clear();
        rows.resize(tokens.len() * self.width, 0.0);
        for (&token, row) in tokens.iter().zip(rows.chunks_exact_mut(self.width)) {
            self.look_up_one(token, row)?;
        }
        Ok(())
    }

    fn look_up_one(&mut self, token: TokenId, out: &mut [f32]) -> Result<(), StageError> {
        let number = u64::try_from(token).ok().filter(|t| *t < self.tokens);
        let number = number.ok_or(StageError::Token { token })?;
        let embedding = |e: &dyn std::fmt::Display| StageError::Embedding(e.to_string());
        let mut at = self.offset + number * self.row.len() as u64;
        let mut left = self.row.as_mut_slice();
        while !left.is_empty() {
            let read = match self.source.read_at(at, left) {
                Ok(0) => return Err(embedding(&"the file has become shorter")),
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(embedding(&e)),
            };
            at += read as u64;
            left = &mut left[read..];
        }
        llama::dequantize(self.type_id, &self.row, out).map_err(|e| embedding(&e))?;
        if self.scale != 1.0 {
            out.iter_mut().for_each(|value| *value *= self.scale);
        }
        Ok(())
    }
}
