//! A context: KV memory and compute buffers over a model.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::backend;
use crate::error::{DecodeError, Error};
use crate::layer_hook::{Hook, on_node};
use crate::order::Order;
use crate::{Batch, LayerHook, Model, Pos, SeqId, Threadpool};

/// How a KV cache stores its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8 bits and a scale per 32 values.
    Q8,
}

/// How an embedding model joins the hidden states of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Not at all: one vector per token.
    None,
    /// The mean.
    Mean,
    /// The first token's.
    First,
    /// The last token's.
    Last,
    /// Not to a vector but to a score per class, for ranking.
    Rank,
}

impl Pooling {
    fn raw(self) -> sys::llama_pooling_type {
        match self {
            Self::None => sys::LLAMA_POOLING_TYPE_NONE,
            Self::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
            Self::First => sys::LLAMA_POOLING_TYPE_CLS,
            Self::Last => sys::LLAMA_POOLING_TYPE_LAST,
            Self::Rank => sys::LLAMA_POOLING_TYPE_RANK,
        }
    }
}

/// How to make a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextParams {
    /// KV cells, shared by all sequences.
    pub kv_tokens: u32,
    /// Most rows of one decode call.
    pub batch_tokens_max: u32,
    /// Most rows of one decode call that give logits: sizes the output buffers.
    pub outputs_max: u32,
    /// Most sequences, at most 256.
    pub sequences_max: u32,
    /// Threads for computing.
    pub threads: u32,
    /// How long idle compute threads poll before they sleep, 0 to 100.
    pub poll: u32,
    /// How the KV cache is stored.
    pub kv_type: KvType,
    /// Give embeddings instead of logits.
    pub embeddings: bool,
}

/// KV memory and compute buffers; used by one thread at a time.
#[derive(Debug)]
pub struct Context {
    // Order matters: the context is freed in `drop`, before pool, hook and model.
    raw: NonNull<sys::llama_context>,
    memory: Option<sys::llama_memory_t>,
    pool: Option<Threadpool>,
    model: Model,
    params: ContextParams,
    hook: Option<Hook>,
    /// Hidden states of the last batch, in its order.
    hidden: Vec<f32>,
}

// SAFETY: a context is plain heap state; llama.cpp binds nothing of it to the creating thread
// (compute threads are its own). `&mut self` on every call that changes it keeps use exclusive.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `llama_init_from_model`, freed once; model and pool are still alive.
        unsafe {
            sys::llama_detach_threadpool(self.raw.as_ptr());
            sys::llama_free(self.raw.as_ptr());
        }
        drop(self.pool.take());
    }
}

impl Context {
    /// Makes a context on `model`.
    ///
    /// # Errors
    /// [`Error::Context`], in most cases for lack of memory.
    pub fn new(model: &Model, params: ContextParams) -> Result<Self, Error> {
        Self::make(model, params, None, None)
    }

    /// Makes a context that joins the hidden states of each sequence as `pooling` says, whatever the
    /// model's file says.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_pooling(
        model: &Model,
        params: ContextParams,
        pooling: Pooling,
    ) -> Result<Self, Error> {
        Self::make(model, params, None, Some(pooling))
    }

    /// Makes a context that hidden states are put into ([`decode_hidden`](Self::decode_hidden)) and
    /// taken out of ([`hidden`](Self::hidden)) as `hook` says.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Hidden`] for a model that can't be used so.
    pub fn with_layer_hook(
        model: &Model,
        params: ContextParams,
        hook: &LayerHook,
    ) -> Result<Self, Error> {
        if model.is_recurrent() && !model.is_hybrid() {
            return Err(Error::Hidden("no layer of the model attends"));
        }
        let hook = Hook::new(hook, model.embedding_width() as usize)?;
        Self::make(model, params, Some(hook), None)
    }

    fn make(
        model: &Model,
        params: ContextParams,
        hook: Option<Hook>,
        pooling: Option<Pooling>,
    ) -> Result<Self, Error> {
        let threads = i32::try_from(params.threads.max(1)).unwrap_or(1);
        // SAFETY: returns plain data.
        let mut raw_params = unsafe { sys::llama_context_default_params() };
        raw_params.n_ctx = params.kv_tokens;
        raw_params.n_batch = params.batch_tokens_max;
        raw_params.n_ubatch = params.batch_tokens_max;
        raw_params.n_outputs_max = params.outputs_max;
        raw_params.n_seq_max = params.sequences_max;
        raw_params.n_threads = threads;
        raw_params.n_threads_batch = threads;
        raw_params.embeddings = params.embeddings;
        raw_params.no_perf = true;
        // One pool of cells for all sequences: prefixes are shared without copying, and the rows
        // of any sequences fit into one batch.
        raw_params.kv_unified = true;
        // A window-sized cache would forget cells that a shared prefix needs.
        raw_params.swa_full = true;
        let kv_type = match params.kv_type {
            KvType::F16 => sys::GGML_TYPE_F16,
            KvType::Q8 => sys::GGML_TYPE_Q8_0,
        };
        raw_params.type_k = kv_type;
        raw_params.type_v = kv_type;
        if let Some(pooling) = pooling {
            raw_params.pooling_type = pooling.raw();
        }
        if let Some(hook) = &hook {
            raw_params.cb_eval = Some(on_node);
            raw_params.cb_eval_user_data = hook.user_data();
        }
        backend::take_errors();
        // SAFETY: the model is alive and kept alive by the clone below, and the hook is kept as long
        // as the context; llama.cpp catches its own exceptions and returns null.
        let raw = unsafe { sys::llama_init_from_model(model.raw(), raw_params) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::Context(backend::take_errors()))?;
        // SAFETY: the context is alive.
        let memory = unsafe { sys::llama_get_memory(raw.as_ptr()) };
        backend::context_made();
        let pool = Threadpool::new(params.threads, params.poll);
        if let Some(pool) = &pool {
            // SAFETY: both are alive; the pool outlives its use (see `drop`).
            unsafe { sys::llama_attach_threadpool(raw.as_ptr(), pool.raw(), pool.raw()) };
        }
        let memory = (!memory.is_null()).then_some(memory);
        Ok(Self {
            raw,
            memory,
            pool,
            model: model.clone(),
            params,
            hook,
            hidden: Vec::new(),
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// KV cells in all; llama.cpp may have rounded the wish up.
    #[must_use]
    pub fn kv_tokens(&self) -> u32 {
        // SAFETY: the context is alive.
        unsafe { sys::llama_n_ctx(self.raw.as_ptr()) }
    }

    /// Whether it keeps sequences from one batch to the next. One that does not sees each batch by
    /// itself: it can embed whole texts, and can't go on with one.
    #[must_use]
    pub fn keeps_sequences(&self) -> bool {
        self.memory.is_some()
    }

    /// How the model pools, as the context resolved it.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        // SAFETY: the context is alive.
        match unsafe { sys::llama_pooling_type(self.raw.as_ptr()) } {
            sys::LLAMA_POOLING_TYPE_MEAN => Pooling::Mean,
            sys::LLAMA_POOLING_TYPE_CLS => Pooling::First,
            sys::LLAMA_POOLING_TYPE_LAST => Pooling::Last,
            sys::LLAMA_POOLING_TYPE_RANK => Pooling::Rank,
            _ => Pooling::None,
        }
    }

    /// Evaluates the batch.
    ///
    /// # Errors
    /// [`DecodeError::InvalidBatch`] for rows outside the vocabulary or the sequence range, or too
    /// many of them; the others are llama.cpp's.
    pub fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        let in_range = batch.len() <= self.params.batch_tokens_max as usize
            && batch
                .tokens()
                .iter()
                .all(|t| self.model.vocabulary().contains(*t))
            && batch
                .sequences()
                .iter()
                .all(|s| u32::try_from(*s).is_ok_and(|s| s < self.params.sequences_max));
        if !in_range || batch.is_empty() {
            return Err(DecodeError::InvalidBatch);
        }
        let _computing = backend::computing();
        // SAFETY: the arrays of the view live in `batch` and are as long as `n_tokens`; tokens and
        // sequences are in range. llama.cpp copies what it keeps. It may call the hook, which lives as
        // long as the context, and no reference to the hook's state does meanwhile.
        decoded(unsafe { sys::llama_decode(self.raw.as_ptr(), batch.raw()) })
    }

    /// Evaluates the batch, in a context with a hook, but its rows enter the first layer as `hidden`
    /// says (rows × width) instead of what the tokens stand for.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); [`DecodeError::InvalidBatch`] also without a hook, or for hidden
    /// states of another size; [`DecodeError::NoHiddenState`].
    pub fn decode_hidden(&mut self, batch: &mut Batch, hidden: &[f32]) -> Result<(), DecodeError> {
        let width = self.model.embedding_width() as usize;
        let order = if self.model.is_recurrent() {
            Order::by_sequence(batch.sequences(), self.params.batch_tokens_max as usize)
        } else {
            Order::as_given(batch.len())
        };
        match &mut self.hook {
            Some(hook) if batch.len().checked_mul(width) == Some(hidden.len()) => {
                hook.arm(hidden, &order.rows);
            }
            _ => return Err(DecodeError::InvalidBatch),
        }
        let decoded = self.decode(batch);
        let Some(hook) = &mut self.hook else {
            return Err(DecodeError::NoHiddenState);
        };
        let is_complete = hook.disarm(&order.sizes);
        decoded?;
        if !is_complete {
            return Err(DecodeError::NoHiddenState);
        }
        self.hidden.clear();
        if hook.takes() && !order.is_as_given() {
            self.hidden.resize(hidden.len(), 0.0);
            for (from, to) in hook.taken().chunks_exact(width).zip(&order.rows) {
                self.hidden[to * width..(to + 1) * width].copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// What the last [`decode_hidden`](Self::decode_hidden) gave: as many rows as it was given, in
    /// their order. Empty if the hook takes nothing.
    #[must_use]
    pub fn hidden(&self) -> &[f32] {
        match &self.hook {
            Some(hook) if self.hidden.is_empty() => hook.taken(),
            _ => &self.hidden,
        }
    }

    /// The logits of row `row` of the last batch, one per token of the vocabulary; `None` if the
    /// row gave no output. They may be changed in place, for example to mask tokens.
    pub fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        let index = i32::try_from(row).ok()?;
        // SAFETY: the context is alive; a wrong index gives null.
        let pointer = unsafe { sys::llama_get_logits_ith(self.raw.as_ptr(), index) };
        if pointer.is_null() {
            return None;
        }
        // SAFETY: llama.cpp keeps one float per token there until the next decode, which needs
        // `&mut self` and so can't happen while the slice lives.
        Some(unsafe { std::slice::from_raw_parts_mut(pointer, self.model.vocabulary().len()) })
    }

    /// What the hidden states of a sequence were joined to by the last decode with `embeddings`: a
    /// vector of the model's output width or, with [`Pooling::Rank`], a score per class. `None` if there
    /// is none, as always without pooling.
    #[must_use]
    pub fn embedding_of_sequence(&self, sequence: SeqId) -> Option<&[f32]> {
        let length = match self.pooling() {
            Pooling::Rank => self.model.classes(),
            Pooling::None | Pooling::Mean | Pooling::First | Pooling::Last => {
                self.model.embedding_width_out()
            }
        };
        // SAFETY: the context is alive; an unknown sequence gives null.
        let pointer = unsafe { sys::llama_get_embeddings_seq(self.raw.as_ptr(), sequence) };
        if pointer.is_null() {
            return None;
        }
        // SAFETY: llama.cpp keeps `length` floats of the sequence there (by the pooling, as above: see
        // `llama_context::decode` and `encode`) until the next decode, which needs `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(pointer, length as usize) })
    }

    /// Removes positions `from..to` of a sequence (`to` `None`: to the end). Returns false if the
    /// model's memory can't be cut there (recurrent layers); then nothing has changed.
    pub fn sequence_remove(&mut self, sequence: SeqId, from: Pos, to: Option<Pos>) -> bool {
        let Some(memory) = self.memory else {
            return true;
        };
        // SAFETY: the memory belongs to the living context.
        unsafe { sys::llama_memory_seq_rm(memory, sequence, from, to.unwrap_or(-1)) }
    }

    /// Makes positions `0..to` of `source` also those of `target`, sharing the cells. `target`
    /// must be empty.
    pub fn sequence_copy(&mut self, source: SeqId, target: SeqId, to: Pos) {
        if let Some(memory) = self.memory {
            // SAFETY: the memory belongs to the living context.
            unsafe { sys::llama_memory_seq_cp(memory, source, target, 0, to) };
        }
    }

    /// Forgets all sequences but one.
    pub fn sequence_keep(&mut self, sequence: SeqId) {
        if let Some(memory) = self.memory {
            // SAFETY: the memory belongs to the living context.
            unsafe { sys::llama_memory_seq_keep(memory, sequence) };
        }
    }

    /// What the memory holds of a sequence, as bytes for [`sequence_load`](Self::sequence_load); empty
    /// if there is nothing. Of layers with a sliding window it is only what the last position needs:
    /// after loading, such a sequence must not be cut back.
    #[must_use]
    pub fn sequence_save(&mut self, sequence: SeqId) -> Vec<u8> {
        if self.memory.is_none() {
            return Vec::new();
        }
        // SAFETY: the context is alive; an unknown sequence has no cells.
        let size = unsafe { sys::llama_state_seq_get_size(self.raw.as_ptr(), sequence) };
        let mut bytes = vec![0; size];
        // SAFETY: as above; llama.cpp writes at most `size` bytes and says how many.
        let written = unsafe {
            sys::llama_state_seq_get_data(self.raw.as_ptr(), bytes.as_mut_ptr(), size, sequence)
        };
        bytes.truncate(written);
        bytes
    }

    /// Gives an empty sequence what [`sequence_save`](Self::sequence_save) took from another one of
    /// this very context. False if there are too few free cells.
    #[must_use]
    pub fn sequence_load(&mut self, sequence: SeqId, bytes: &[u8]) -> bool {
        if self.memory.is_none() || bytes.is_empty() {
            return false;
        }
        // SAFETY: the context is alive; llama.cpp reads at most the length given, and catches its own
        // exceptions. The bytes are its own.
        let read = unsafe {
            sys::llama_state_seq_set_data(self.raw.as_ptr(), bytes.as_ptr(), bytes.len(), sequence)
        };
        read == bytes.len()
    }

    /// The last position that a sequence holds, or `None` if it is empty.
    #[must_use]
    pub fn sequence_last(&self, sequence: SeqId) -> Option<Pos> {
        let memory = self.memory?;
        // SAFETY: the memory belongs to the living context.
        Some(unsafe { sys::llama_memory_seq_pos_max(memory, sequence) }).filter(|p| *p >= 0)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if let Some(memory) = self.memory {
            // SAFETY: the memory belongs to the living context.
            unsafe { sys::llama_memory_clear(memory, false) };
        }
    }
}

fn decoded(code: i32) -> Result<(), DecodeError> {
    match code {
        0 => Ok(()),
        1 => Err(DecodeError::NoKvSlot),
        2 => Err(DecodeError::Aborted),
        -1 => Err(DecodeError::InvalidBatch),
        code => Err(DecodeError::Fatal(code)),
    }
}
