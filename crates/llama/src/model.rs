//! A loaded model: weights, metadata, vocabulary.

use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use crate::Vocabulary;
use crate::backend;
use crate::error::Error;
use crate::huge_pages;

/// How to load a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelParams {
    /// Layers to put on the GPU; `None`: all.
    pub gpu_layers: Option<u32>,
    /// Device by name; `None`: llama.cpp's choice.
    pub device: Option<String>,
    /// Load only the vocabulary.
    pub vocabulary_only: bool,
    /// Leave the weights as they are in the file instead of rearranging them for matrix units.
    pub keep_layout: bool,
}

/// Weights and vocabulary. Cheap to clone; freed with its last clone and last context.
#[derive(Debug, Clone)]
pub struct Model {
    inner: Arc<ModelInner>,
}

#[derive(Debug)]
struct ModelInner {
    raw: NonNull<sys::llama_model>,
    vocabulary: Vocabulary,
}

// SAFETY: a model is not changed after loading; llama.cpp's accessors take it as `const` and use
// no thread-bound state. Contexts on it may run on several threads.
unsafe impl Send for ModelInner {}
// SAFETY: as above.
unsafe impl Sync for ModelInner {}

impl Drop for ModelInner {
    fn drop(&mut self) {
        // SAFETY: made by the loader, freed once; every context holds a clone of the `Arc`, so
        // none is left.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) };
    }
}

/// Lets a Rust closure receive llama.cpp's progress; returning false stops the loading.
type Progress<'a> = &'a mut dyn FnMut(f32) -> bool;

unsafe extern "C" fn report(progress: f32, state: *mut c_void) -> bool {
    // SAFETY: `state` is the `Progress` on the stack of `Model::load`, which outlives the call.
    let callback = unsafe { &mut *state.cast::<Progress<'_>>() };
    // A panic must not unwind through C++ frames.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| callback(progress))).unwrap_or(false)
}

impl Model {
    /// Loads the GGUF at `paths` (one file, or all parts in order), memory-mapped.
    ///
    /// `on_progress` gets the share that is done, 0 to 1; returning false stops the loading.
    ///
    /// # Errors
    /// [`Error::Load`] with llama.cpp's own words, [`Error::Cancelled`], [`Error::Device`].
    pub fn load(
        paths: &[PathBuf],
        params: &ModelParams,
        mut on_progress: impl FnMut(f32) -> bool,
    ) -> Result<Self, Error> {
        backend::init();
        let first = paths.first().ok_or(Error::Text("no file was named"))?;
        let names: Vec<CString> = paths.iter().map(|p| c_path(p)).collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
        let mut devices = device_list(params.device.as_deref())?;

        let mut cancelled = false;
        let mut is_claimed = params.vocabulary_only;
        let mut guarded = |progress: f32| {
            // Told for the first time between claiming memory for weights and filling it.
            if !std::mem::replace(&mut is_claimed, true) {
                huge_pages::ask();
            }
            let go_on = on_progress(progress) && !backend::is_ending();
            cancelled |= !go_on;
            go_on
        };
        let mut progress: Progress<'_> = &mut guarded;
        // SAFETY: returns plain data.
        let mut raw_params = unsafe { sys::llama_model_default_params() };
        raw_params.n_gpu_layers = params
            .gpu_layers
            .map_or(-1, |n| i32::try_from(n).unwrap_or(-1));
        raw_params.load_mode = sys::LLAMA_LOAD_MODE_MMAP;
        raw_params.vocab_only = params.vocabulary_only;
        raw_params.use_extra_bufts = !params.keep_layout;
        raw_params.progress_callback = Some(report);
        raw_params.progress_callback_user_data = (&raw mut progress).cast();
        if !devices.is_empty() {
            devices.push(std::ptr::null_mut());
            raw_params.devices = devices.as_mut_ptr();
        }
        backend::take_errors();
        let _computing = backend::computing();
        // SAFETY: the paths, the device list and the callback's state live until the call returns;
        // llama.cpp keeps none of them. It catches its own exceptions and returns null.
        let raw = unsafe {
            if pointers.len() == 1 {
                sys::llama_model_load_from_file(pointers[0], raw_params)
            } else {
                sys::llama_model_load_from_splits(pointers.as_mut_ptr(), pointers.len(), raw_params)
            }
        };
        let reason = backend::take_errors();
        match NonNull::new(raw) {
            Some(raw) => {
                // SAFETY: the vocabulary belongs to the model, which `ModelInner` keeps alive.
                let vocabulary = unsafe { Vocabulary::of_model(raw.as_ptr()) };
                Ok(Self {
                    inner: Arc::new(ModelInner { raw, vocabulary }),
                })
            }
            None if cancelled => Err(Error::Cancelled),
            None => Err(Error::Load {
                path: first.clone(),
                reason,
            }),
        }
    }

    pub(crate) fn raw(&self) -> *mut sys::llama_model {
        self.inner.raw.as_ptr()
    }

    /// The vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.inner.vocabulary
    }

    /// Context length that the model was trained for, tokens.
    #[must_use]
    pub fn context_tokens_trained(&self) -> u32 {
        // SAFETY: the model is alive.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.raw()) }).unwrap_or(0)
    }

    /// Width of hidden states.
    #[must_use]
    pub fn embedding_width(&self) -> u32 {
        // SAFETY: the model is alive.
        u32::try_from(unsafe { sys::llama_model_n_embd(self.raw()) }).unwrap_or(0)
    }

    /// Width of the vectors that an embedding model gives.
    #[must_use]
    pub fn embedding_width_out(&self) -> u32 {
        // SAFETY: the model is alive.
        u32::try_from(unsafe { sys::llama_model_n_embd_out(self.raw()) }).unwrap_or(0)
    }

    /// Classes that a model for ranking scores; 1 unless its file names them.
    #[must_use]
    pub fn classes(&self) -> u32 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_cls_out(self.raw()) }
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> u32 {
        // SAFETY: the model is alive.
        u32::try_from(unsafe { sys::llama_model_n_layer(self.raw()) }).unwrap_or(0)
    }

    /// Size of all tensors, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_size(self.raw()) }
    }

    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_params(self.raw()) }
    }

    /// Whether it has an encoder, which must see a text before anything can be decoded. The models that
    /// embed by attending in both directions count as decoders here.
    #[must_use]
    pub fn has_encoder(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_has_encoder(self.raw()) }
    }

    /// Whether a sequence's memory can't be cut back to an earlier position (state-space layers).
    #[must_use]
    pub fn is_recurrent(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe {
            sys::llama_model_is_recurrent(self.raw()) || sys::llama_model_is_hybrid(self.raw())
        }
    }

    /// Whether only some layers are recurrent, and the others attend.
    #[must_use]
    pub fn is_hybrid(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_is_hybrid(self.raw()) }
    }

    /// Whether some layers look back over a limited number of tokens only.
    #[must_use]
    pub fn has_sliding_window(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_swa(self.raw()) > 0 }
    }
}

fn c_path(path: &Path) -> Result<CString, Error> {
    #[cfg(unix)]
    let bytes = {
        use std::os::unix::ffi::OsStrExt;
        path.as_os_str().as_bytes().to_vec()
    };
    #[cfg(not(unix))]
    let bytes = path.to_string_lossy().into_owned().into_bytes();
    CString::new(bytes).map_err(|_| Error::Text("the path holds a NUL byte"))
}

fn device_list(name: Option<&str>) -> Result<Vec<sys::ggml_backend_dev_t>, Error> {
    let Some(name) = name else {
        return Ok(Vec::new());
    };
    let all = backend::raw_devices();
    match all.iter().find(|(_, d)| d.name.eq_ignore_ascii_case(name)) {
        Some((device, _)) => Ok(vec![*device]),
        None => Err(Error::Device {
            name: name.to_owned(),
            known: all
                .iter()
                .map(|(_, d)| d.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}
