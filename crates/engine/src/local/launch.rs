//! From loaded weights to what a decode thread needs: who evaluates, who drafts, with what limits.

use std::time::{SystemTime, UNIX_EPOCH};

use llama::{Context, DeviceKind, Model};

use super::drafter::{self, Drafter, ModelDrafter};
use super::forward::Forward;
use super::load::{self, Draft, Header, LoadOptions, ModelSource, Room};
use super::purpose::Purpose;
use crate::scheduler::Limits;
use crate::stage::{EmbeddingTable, Pipeline, StageError, Stages, Tail};
use crate::text::ChatFormat;
use crate::{Error, ModelInfo};

/// Memory for kept logits, bytes: a dozen prompts of a large vocabulary.
const LOGITS_BYTES_MAX: usize = 8 << 20;

/// And no more than so many, since each is looked through by every prompt.
const LOGITS_KEPT_MAX: usize = 64;

/// Who does the work behind a handle.
pub(super) enum Evaluator {
    Embeds(Context),
    Generates {
        forward: Box<dyn Forward>,
        drafter: Drafter,
        /// Whether prefixes may be moved out of the KV cache.
        stores: bool,
    },
}

/// What the scheduler may use.
pub(super) fn limits(room: Room, model: &Model, stores: bool) -> Limits {
    Limits {
        slots: room.slots as usize,
        sequences: room.sequences as usize,
        kv_tokens: room.context_tokens as usize,
        batch_tokens: room.batch_tokens as usize,
        can_cut: !model.is_recurrent(),
        row_group: llama::row_group(),
        stored_tokens: if stores {
            room.stored_tokens as usize
        } else {
            0
        },
        logits_kept: logits_kept(model.vocabulary().len()),
    }
}

/// Of how many prompts the logits are kept.
fn logits_kept(vocabulary: usize) -> usize {
    let bytes = (vocabulary * size_of::<f32>()).max(1);
    (LOGITS_BYTES_MAX / bytes).min(LOGITS_KEPT_MAX)
}

/// The parts of a model, the last of which is at `options.source`.
pub(super) fn pipeline(
    options: &LoadOptions,
    header: &Header,
    embedding: EmbeddingTable,
    stages: Box<dyn Stages>,
) -> Result<Pipeline, Error> {
    let ModelSource::Path(path) = &options.source else {
        return Err(Error::Load("a part of a model must be a file".into()));
    };
    let load = |e: StageError| Error::Load(e.to_string());
    let tail = Tail::open(path, &header.stage_options(options)).map_err(load)?;
    Pipeline::new(embedding, stages, tail).map_err(load)
}

/// Whether prefixes may be moved between KV cache and host memory. Of a sliding window llama.cpp saves
/// what the last position needs, and earlier ones would miss theirs. From a GPU the way is long, and
/// there idle cells cost little.
pub(super) fn can_store(model: &Model) -> bool {
    let is_gpu = |kind| matches!(kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu);
    let devices = llama::devices();
    !devices.iter().any(|device| is_gpu(device.kind)) && !model.has_sliding_window()
}

/// What proposes tokens ahead.
pub(super) fn drafter(options: &LoadOptions, model: &Model, room: Room) -> Result<Drafter, Error> {
    if model.is_recurrent() {
        // Rejected drafts can't be taken back out of recurrent memory.
        return Ok(Drafter::Off);
    }
    match &options.draft {
        Draft::None => Ok(Drafter::Off),
        Draft::Auto => Ok(Drafter::Lookup),
        Draft::Path(path) => {
            let mut draft = LoadOptions::new(ModelSource::Path(path.clone()));
            draft.gpu_layers = options.gpu_layers;
            draft.device = options.device.clone();
            let header = Header::read(&draft)?;
            let weights = load::load_weights(&draft.source, &header.gguf, &draft, &mut |_| {})?;
            drafter::check_vocabulary(model.vocabulary(), weights.vocabulary())?;
            let draft_room = Room {
                sequences: room.slots,
                ..room
            };
            let context = draft_room.context(&weights, Purpose::Text)?;
            let model = ModelDrafter::new(context, room.slots as usize, room.batch_tokens as usize);
            Ok(Drafter::Model(Box::new(model)))
        }
    }
}

/// What the model says of itself.
pub(super) fn model_info(header: &Header, model: &Model, format: &ChatFormat) -> ModelInfo {
    let metadata = header.gguf.metadata();
    let embeds = header.purpose.embeds();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    ModelInfo {
        name: header.name.clone(),
        architecture: metadata.architecture().unwrap_or("unknown").to_owned(),
        quantization: header.gguf.quantization(),
        parameters: model.parameters(),
        size_bytes: model.size_bytes(),
        context_tokens: header.room.context_tokens,
        trained_context_tokens: model.context_tokens_trained(),
        embedding_width: model.embedding_width_out(),
        vocabulary_tokens: model.vocabulary().len() as u32,
        slots: header.room.slots,
        generates: !embeds,
        embeds,
        tools: !embeds && format.knows_tools(),
        reasoning: !embeds && format.knows_reasoning(),
        created_unix_s: now,
        fingerprint: header.gguf.fingerprint().to_string(),
    }
}
