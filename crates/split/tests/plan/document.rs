//! The worked examples in `docs/big-models.md` are what the planner says.

use split::plan::render::{self, COLUMNS};
use split::plan::{Request, make, nodes};
use split::published;

const DOCUMENT: &str = include_str!("../../../../docs/big-models.md");

fn request(sequences: u32) -> Request<u32> {
    Request {
        sequences,
        ..Request::new(8192)
    }
}

fn name(id: &u32) -> String {
    format!("machine {id}")
}

/// Table and expectations of one example, or the refusal, as the document shows them.
fn example(model: &str, machines: &str) -> String {
    let shape = published::parse(model).unwrap().shape();
    let pool = nodes::pool(&nodes::parse(machines).unwrap()).unwrap();
    let command = format!("`mesh-llm plan {model} --nodes {machines}`");
    match make(&shape, &pool, &request(4)) {
        Ok(plan) => {
            let table = render::markdown(COLUMNS, &render::rows(&plan, name));
            let lines = render::summary(&plan);
            let lines: String = lines.iter().map(|line| format!("- {line}\n")).collect();
            format!("{command}\n\n{table}\n{lines}")
        }
        Err(refusal) => format!("{command}\n\n> {refusal}\n"),
    }
}

/// What distance costs.
fn distances(model: &str, machine: &str) -> String {
    let shape = published::parse(model).unwrap().shape();
    let row = |round_trip: &str| {
        let machines = format!("{machine},{machine}@{round_trip}");
        let pool = nodes::pool(&nodes::parse(&machines).unwrap()).unwrap();
        let [speed, network] = match make(&shape, &pool, &request(1)) {
            Ok(plan) => [
                format!("{:.1}", plan.tokens_per_second),
                format!("{:.1} ms", plan.ring_delay.as_secs_f64() * 1e3),
            ],
            Err(_) => ["refused: too far".to_owned(), String::new()],
        };
        [round_trip.to_owned(), speed, network]
    };
    let rows = ["1ms", "5ms", "20ms", "80ms", "81ms"].map(row);
    render::markdown(
        [
            "round trip",
            "tokens/s, one stream",
            "a token's time on the network",
        ],
        &rows,
    )
}

#[test]
fn the_document_shows_what_the_planner_says() {
    let shown = [
        example("Qwen3.5-397B-A17B:Q4_K_M", "128G/200,64G/80"),
        example("Qwen3.5-397B-A17B:Q2_K", "128G/200,64G/80"),
        example("Qwen3.5-397B-A17B:Q4_K_M", "128G/200,128G/200,64G/80@5ms"),
        example("Qwen3.5-122B-A10B:Q4_K_M", "128G/200,64G/80"),
        example("Qwen3.5-122B-A10B:Q4_K_M", "64G/80,64G/80"),
        example("Llama-3.3-70B:Q4_K_M", "32G/80,32G/80@5ms"),
        example("Qwen2.5-72B:Q4_K_M", "32G/80,32G/80@5ms"),
        distances("Llama-3.3-70B:Q4_K_M", "32G/80"),
    ];
    for text in &shown {
        assert!(
            DOCUMENT.contains(text.as_str()),
            "docs/big-models.md lacks this:\n\n{text}"
        );
    }
}
