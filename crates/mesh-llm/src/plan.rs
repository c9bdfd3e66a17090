//! `mesh-llm plan`: which machines would run which layers of a model, and how fast that would be.
//! Starts nothing, and needs no more than a header, or the name of a well-known model.

mod machines;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gguf::{LayerMap, Model};
use node::Search;
use serde_json::{Value, json};
use split::plan::{Plan, Request, WindowCache, make, render};
use split::published;

use self::machines::Machines;
use crate::cli::{PlanArguments, print};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::table;

/// Context that is planned for unless asked otherwise, tokens.
const CONTEXT_DEFAULT: u32 = 8_192;

/// Streams that are planned for unless asked otherwise: a person and an agent or two.
const STREAMS_DEFAULT: u32 = 4;

/// A model to plan.
struct Subject {
    name: String,
    shape: split::plan::ModelShape,
    /// Why it can't be split, if so.
    whole_only: Option<String>,
    /// This machine has its file.
    is_here: bool,
}

/// Makes and prints the plan.
pub(crate) async fn run(settings: &Settings, arguments: &PlanArguments) -> Result<(), Failure> {
    let subject = subject(settings, &arguments.model)?;
    let machines = match &arguments.nodes {
        Some(list) => Machines::described(list)?,
        None => Machines::of_mesh(settings, &subject.name, subject.is_here).await?,
    };
    let request = Request {
        context_tokens: settings.node.context_tokens.unwrap_or(CONTEXT_DEFAULT),
        sequences: settings.node.slots.unwrap_or(STREAMS_DEFAULT),
        force_split: arguments.split,
        host: None,
    };
    let plan = make(&subject.shape, &machines.pool, &request).map_err(|refusal| {
        let why = subject.whole_only.as_ref();
        let why = why.map(|why| format!("\n{why}")).unwrap_or_default();
        Failure::model(format!("{}: {refusal}{why}", subject.name))
    })?;
    let text = if arguments.json {
        format!("{}\n", to_json(&subject, &plan, &machines, &request))
    } else {
        to_text(&subject, &plan, &machines, &request)
    };
    print(text.as_bytes())
}

/// Finds the model: a file, one of this machine by name, or a well-known one.
fn subject(settings: &Settings, name: &str) -> Result<Subject, Failure> {
    let path = Path::new(name);
    if path.is_file() {
        return of_file(node::name_of(path), path);
    }
    let search = Search {
        folders: &settings.node.models_dirs,
    };
    let missing = match search.find(name) {
        Ok(found) => return of_file(node::name_of(&found), &found),
        Err(error) => error,
    };
    if matches!(missing, node::StartError::Ambiguous { .. }) {
        return Err(missing.into());
    }
    let variant = published::parse(name).map_err(|unknown| {
        Failure::model(format!("no model `{name}` on this machine, and {unknown}"))
    })?;
    Ok(Subject {
        name: format!("{}:{}", variant.model.name, variant.quantisation.name),
        shape: variant.shape(),
        whole_only: None,
        is_here: false,
    })
}

fn of_file(name: String, path: &Path) -> Result<Subject, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let path: PathBuf = path.into();
        Failure::model(format!("can't plan {}: {error}", path.display()))
    };
    let model = Model::open(path).map_err(|error| unreadable(&error))?;
    let (period, whole_only) = match LayerMap::of(&model) {
        // The first place where it may be cut.
        Ok(map) => (map.cuts().first().copied(), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let shape = split::plan::ModelShape::from_model(&model, period, WindowCache::Full)
        .map_err(|error| unreadable(&error))?;
    Ok(Subject {
        name,
        shape,
        whole_only,
        is_here: true,
    })
}

fn to_text(
    subject: &Subject,
    plan: &Plan<u32>,
    machines: &Machines,
    request: &Request<u32>,
) -> String {
    let count = plan.stages.len();
    let place = match count {
        1 => "whole on one machine".to_owned(),
        _ => format!("over {count} machines"),
    };
    let mut text = format!(
        "{} with {} tokens of context: {place}\n\n",
        subject.name, request.context_tokens
    );
    let mut rows = vec![render::COLUMNS.map(str::to_owned)];
    rows.extend(render::rows(plan, |id| machines.name(*id)));
    text.push_str(&table::table(&rows));
    text.push('\n');
    for line in render::summary(plan) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(machines.assumption());
    text
}

fn to_json(
    subject: &Subject,
    plan: &Plan<u32>,
    machines: &Machines,
    request: &Request<u32>,
) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let stages: Vec<Value> = plan
        .stages
        .iter()
        .map(|stage| {
            json!({
                "machine": machines.name(stage.id),
                "layers": [stage.layers.start, stage.layers.end],
                "weight_bytes": stage.weight_bytes,
                "cache_bytes": stage.kv_bytes,
                "needed_bytes": stage.needed_bytes,
                "memory_bytes": stage.memory_bytes,
                "fetch_bytes": stage.fetch_bytes,
                "token_ms": ms(stage.token_time),
                "next_round_trip_ms": stage.next_round_trip.map(ms),
            })
        })
        .collect();
    let first: Vec<Value> = render::PROMPT_TOKENS
        .iter()
        .map(|tokens| json!({ "prompt_tokens": tokens, "ms": ms(plan.first_token_time(*tokens)) }))
        .collect();
    json!({
        "model": subject.name,
        "context_tokens": request.context_tokens,
        "streams": plan.sequences,
        "host": machines.name(plan.host),
        "whole": plan.is_whole(),
        "stages": stages,
        "token_ms": ms(plan.token_time),
        "network_ms": ms(plan.ring_delay),
        "tokens_per_second": plan.tokens_per_second,
        "tokens_per_second_full": plan.tokens_per_second_full,
        "first_token": first,
    })
}
