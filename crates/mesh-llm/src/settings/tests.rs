use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node::{Draft, Hub, ModelSource, SplitModels};

use super::{
    ConsolePort, Environment, LogFormat, Settings, SettingsError, Way, early_log_format, resolve,
};
use crate::cli::Cli;

mod mesh;

struct Machine {
    home: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    fn new(file: Option<&str>, variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        if let Some(file) = file {
            std::fs::write(home.path().join("config.toml"), file).unwrap();
        }
        let mut all = vec![
            ("MESH_LLM_HOME".into(), home.path().display().to_string()),
            ("HOME".into(), "/home/ada".into()),
        ];
        all.extend(
            variables
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        );
        Self {
            home,
            variables: all,
        }
    }

    fn environment(&self) -> Environment {
        let variables = self.variables.iter();
        Environment {
            variables: variables
                .map(|(name, value)| (name.clone(), value.into()))
                .collect(),
            host_name: Some("ada-pc".into()),
        }
    }

    fn resolve(&self, flags: &[&str]) -> Result<Settings, SettingsError> {
        let arguments = ["mesh-llm"].iter().chain(flags).map(OsString::from);
        let cli = Cli::read(&arguments.collect::<Vec<_>>()).unwrap();
        resolve(cli.layer(), cli.config.as_deref(), &self.environment())
    }
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let context = |file: Option<&str>, variables: &[(&str, &str)], flags: &[&str]| {
        let settings = Machine::new(file, variables).resolve(flags).unwrap();
        settings.node.context_tokens
    };
    let file = Some("ctx_size = 1");
    let variables = [("MESH_LLM_CTX_SIZE", "2")];
    assert_eq!(context(None, &[], &[]), None);
    assert_eq!(context(file, &[], &[]), Some(1));
    assert_eq!(context(file, &variables, &[]), Some(2));
    assert_eq!(context(file, &variables, &["--ctx-size", "3"]), Some(3));
    // Set to nothing is not set.
    assert_eq!(context(file, &[("MESH_LLM_CTX_SIZE", "")], &[]), Some(1));
}

#[test]
fn every_setting_can_come_from_the_file() {
    let file = r#"
        model = ["starter-2", "~/m.gguf"]
        models-dir = "/models"
        ctx_size = 4096
        parallel = 3
        gpu_layers = 5
        device = "CUDA1"
        draft = "small.gguf"
        threads = 2
        max_vram = 1.5
        port = 0
        console = 4131
        listen_all = true
        api_key = "secret"
        host = "box.lan"
        cors_origin = ["https://a.example", "https://b.example"]
        queue = 7
        grace_seconds = 9
        log_format = "json"
        log_level = "debug"
    "#;
    let settings = Machine::new(Some(file), &[]).resolve(&[]).unwrap();
    let expected = [
        ModelSource::Named("starter-2".into()),
        ModelSource::Path("/home/ada/m.gguf".into()),
    ];
    assert_eq!(settings.node.models, expected);
    assert_eq!(settings.node.models_dirs[0], Path::new("/models"));
    assert_eq!(settings.node.context_tokens, Some(4096));
    assert_eq!(settings.node.slots, Some(3));
    assert_eq!(settings.node.gpu_layers, Some(5));
    assert_eq!(settings.node.device.as_deref(), Some("CUDA1"));
    assert_eq!(
        settings.node.draft,
        Draft::Model(ModelSource::Path("small.gguf".into()))
    );
    assert_eq!(
        (settings.node.threads, settings.node.queue_max),
        (Some(2), Some(7))
    );
    assert_eq!(settings.node.memory_bytes_max, Some(3 << 29));
    assert_eq!((settings.port, settings.listen_all), (0, true));
    assert_eq!(settings.console, ConsolePort::Asked(4131));
    assert_eq!(settings.api_key.as_deref(), Some("secret"));
    assert_eq!(settings.hosts, ["box.lan"]);
    assert_eq!(settings.cors_origins.len(), 2);
    assert_eq!(settings.grace, Duration::from_secs(9));
    assert_eq!(settings.log_format, LogFormat::Json);
    assert_eq!(settings.log_level.as_deref(), Some("debug"));
}

#[test]
fn lists_and_switches_come_from_variables() {
    let variables = [
        ("MESH_LLM_MODEL", "a, b"),
        ("MESH_LLM_MODELS_DIR", "/x:/y"),
        ("MESH_LLM_NO_DRAFT", "true"),
        ("MESH_LLM_LISTEN_ALL", "false"),
        ("MESH_LLM_LOG", "engine=debug"),
        ("MESH_LLM_TEST_PYTHON", "python3"),
    ];
    let settings = Machine::new(None, &variables).resolve(&[]).unwrap();
    let names = [
        ModelSource::Named("a".into()),
        ModelSource::Named("b".into()),
    ];
    assert_eq!(settings.node.models, names);
    let folders = [PathBuf::from("/x"), PathBuf::from("/y")];
    assert_eq!(settings.node.models_dirs[..2], folders);
    assert_eq!(settings.node.draft, Draft::None);
    assert!(!settings.listen_all);
    assert_eq!(settings.log_level.as_deref(), Some("engine=debug"));
}

#[test]
fn a_draft_model_and_none_are_one_setting() {
    let variables = [("MESH_LLM_NO_DRAFT", "true")];
    let machine = Machine::new(Some("draft = \"file.gguf\""), &variables);
    assert_eq!(machine.resolve(&[]).unwrap().node.draft, Draft::None);
    let settings = machine.resolve(&["--draft", "./flag.gguf"]).unwrap();
    let path = PathBuf::from("./flag.gguf");
    assert_eq!(settings.node.draft, Draft::Model(ModelSource::Path(path)));
}

#[test]
fn models_are_looked_for_where_other_programs_put_them() {
    let folders = |variables: &[(&str, &str)]| {
        let settings = Machine::new(None, variables)
            .resolve(&["--models-dir", "/own"])
            .unwrap();
        settings.node.models_dirs
    };
    let check = |variables: &[(&str, &str)], cache: &str| {
        let expected: Vec<PathBuf> = ["/own", "/home/ada/.models", cache]
            .map(PathBuf::from)
            .to_vec();
        assert_eq!(folders(variables), expected);
    };
    check(&[], "/home/ada/.cache/huggingface/hub");
    check(&[("HF_HOME", "/hf")], "/hf/hub");
    check(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")], "/hub");
}

#[test]
fn mistakes_are_told_with_a_hint() {
    let check = |file: Option<&str>, variables: &[(&str, &str)], expected: &str| {
        let machine = Machine::new(file, variables);
        let message = machine.resolve(&[]).unwrap_err().to_string();
        let home = machine.home.path().display().to_string();
        assert_eq!(message.replace(&home, "HOME"), expected);
    };
    check(
        Some("ctx-siz = 1"),
        &[],
        "unknown key `ctx_siz` in HOME/config.toml; hint: did you mean `ctx_size`?",
    );
    check(
        None,
        &[("MESH_LLM_PROT", "1")],
        "unknown key `MESH_LLM_PROT` in the environment; hint: did you mean `MESH_LLM_PORT`?",
    );
    check(
        Some("port = 99999"),
        &[],
        "HOME/config.toml: invalid value '99999' for `port`: 99999 is not in 0..=65535",
    );
    check(
        None,
        &[("MESH_LLM_LISTEN_ALL", "maybe")],
        "the environment: invalid value 'maybe' for `MESH_LLM_LISTEN_ALL`",
    );
    check(
        Some("queue = 10001"),
        &[],
        "HOME/config.toml: invalid value '10001' for `queue`: 10001 is not in 1..=10000",
    );
    check(
        Some("draft = 'small'\nno_draft = true"),
        &[],
        "HOME/config.toml: the argument `draft` cannot be used with `no_draft`",
    );
    check(
        Some("[port]\nnumber = 1"),
        &[],
        "HOME/config.toml: `port` must be a text, a number, true, false, or a list of texts",
    );
    check(
        Some("[network]\nrelays = { url = 'x' }"),
        &[],
        "HOME/config.toml: `relays` must be a text, a number, true, false, or a list of texts",
    );
    check(
        Some("[net]\nrelays = ['https://a.example']"),
        &[],
        "unknown key `[net]` in HOME/config.toml; hint: the tables are [models], [mesh], [network], [api], [output]",
    );
    check(
        Some("[network]\nport = 1"),
        &[],
        "unknown key `network.port` in HOME/config.toml; hint: it belongs into the table [api]",
    );
    check(
        Some("[network]\nbind_prt = 1"),
        &[],
        "unknown key `bind_prt` in HOME/config.toml; hint: did you mean `bind_port`?",
    );
    check(
        Some("[network]\nbind_ip = 'here'"),
        &[],
        "HOME/config.toml: invalid value 'here' for `bind_ip`: invalid IP address syntax",
    );
    check(
        Some("bind_port = 1\n[network]\nbind_port = 2"),
        &[],
        "HOME/config.toml: the argument `bind_port` cannot be used multiple times",
    );
    check(
        Some("max_vram = 0"),
        &[],
        "HOME/config.toml: invalid value '0' for `max_vram`: 0 is not above 0 and at most 1000000",
    );
    check(
        Some("join = 'mesh1x'\nrejoin = true"),
        &[],
        "HOME/config.toml: the argument `join` cannot be used with `rejoin`",
    );
    check(
        None,
        &[("MESH_LLM_JOIN", "hello")],
        "not a ticket: tickets begin with `mesh1`; hint: paste the whole word that `mesh-llm invite` printed",
    );
    check(
        Some("client = true\nmodel = 'm'"),
        &[],
        "a client runs no model; hint: leave out --client or --model",
    );
}

#[test]
fn a_named_file_must_exist_and_a_default_one_need_not() {
    let machine = Machine::new(None, &[]);
    assert!(machine.resolve(&[]).is_ok());
    let error = machine
        .resolve(&["--config", "/nowhere/c.toml"])
        .unwrap_err();
    assert!(matches!(error, SettingsError::Unreadable { .. }), "{error}");
    let broken = Machine::new(Some("port = "), &[]).resolve(&[]).unwrap_err();
    assert!(matches!(broken, SettingsError::Invalid { .. }), "{broken}");
}

#[test]
fn json_is_recognised_before_anything_is_read() {
    let check = |arguments: &[&str], variable: &str, expected: LogFormat| {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let environment = Machine::new(None, &[("MESH_LLM_LOG_FORMAT", variable)]).environment();
        assert_eq!(early_log_format(&arguments, &environment), expected);
    };
    check(&[], "", LogFormat::Pretty);
    check(&["--log-format=json"], "", LogFormat::Json);
    check(&["chat", "--log-format", "json"], "", LogFormat::Json);
    check(&[], "json", LogFormat::Json);
    check(&["--log-format", "pretty"], "json", LogFormat::Pretty);
    check(&["--log-format"], "", LogFormat::Pretty);
}

#[test]
fn what_does_not_fit_is_split_unless_nobody_could_help_or_may() {
    let check = |file: Option<&str>, flags: &[&str], expected: SplitModels| {
        let settings = Machine::new(file, &[]).resolve(flags).unwrap();
        assert_eq!(settings.node.split, expected, "{file:?} {flags:?}");
    };
    check(None, &["--model", "m"], SplitModels::IfNeeded);
    check(None, &["--model", "m", "--split"], SplitModels::Always);
    check(None, &["--model", "m", "--no-split"], SplitModels::Never);
    check(None, &["--model", "m", "--no-mesh"], SplitModels::Never);
    check(None, &["--client"], SplitModels::Never);
    // Whoever says either on the command line has said both.
    check(Some("split = true"), &["--no-split"], SplitModels::Never);
    check(Some("no_split = true"), &["--split"], SplitModels::Always);
}

#[test]
fn the_hub_can_be_another_or_none_and_learns_the_token_in_secret_only() {
    let hub = |variables: &[(&str, &str)], flags: &[&str]| {
        let settings = Machine::new(Some("[models]\nhub = \"https://hub.lan/\""), variables);
        settings.resolve(flags).map(|settings| settings.node.hub)
    };
    let token = ("HF_TOKEN", "hf_secret");
    let of = |address: &str, token: Option<&str>| {
        Some(Hub {
            address: address.to_owned(),
            token: token.map(str::to_owned),
        })
    };
    assert_eq!(hub(&[], &[]).unwrap(), of("https://hub.lan/", None));
    assert_eq!(
        hub(&[token], &[]).unwrap(),
        of("https://hub.lan/", Some("hf_secret"))
    );
    let plain = hub(&[token], &["--hub", "http://hub.lan"]);
    assert_eq!(plain.unwrap(), of("http://hub.lan", None));
    assert_eq!(hub(&[("MESH_LLM_HUB", "none")], &[]).unwrap(), None);
    let error = hub(&[], &["--hub", "ftp://hub.lan"]).unwrap_err();
    assert!(
        error.to_string().contains("`ftp://hub.lan` is no address"),
        "{error}"
    );
    let usual = Machine::new(None, &[]).resolve(&[]).unwrap();
    assert_eq!(usual.node.hub, of("https://huggingface.co", None));
    assert!(!format!("{:?}", of("https://x", Some("hf_secret"))).contains("hf_secret"));
}
