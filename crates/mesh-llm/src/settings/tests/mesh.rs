//! Which mesh, as what, and how it is reached.

use std::path::Path;

use mesh::Role;
use mesh::net::Relays;
use mesh::ticket::{Terms, Ticket};
use mesh::{MeshId, NodeId};
use node::ModelSource;
use split::spec::Precision;

use super::{ConsolePort, Machine, Settings, Way};

fn settings(file: Option<&str>, variables: &[(&str, &str)], flags: &[&str]) -> Settings {
    Machine::new(file, variables).resolve(flags).unwrap()
}

/// A ticket that reads; what it says does not matter here.
fn ticket() -> Ticket {
    let key = iroh_base::SecretKey::from_bytes(&[7; 32]);
    let root = NodeId::from_bytes(*key.public().as_bytes());
    let terms = Terms {
        mesh: MeshId::from_bytes([1; 32]),
        name: None,
        root,
        issuer: root,
        chain: Vec::new(),
        id: mesh::admission::TicketId::from_bytes([2; 8]),
        role: Role::Serve,
        expires_unix_ms: None,
        uses_max: None,
        bootstrap: Vec::new(),
    };
    Ticket::sign(terms, &key)
}

#[test]
fn the_flags_say_which_mesh() {
    let check = |flags: &[&str], expected: Way| {
        assert_eq!(settings(None, &[], flags).way, expected, "{flags:?}");
    };
    let open = |name: Option<&str>| Way::Open {
        name: name.map(str::to_owned),
    };
    let ticket = ticket();
    let text = ticket.to_string();
    let join = || Way::Join(Box::new(ticket.clone()));
    check(&[], Way::Idle);
    check(&["--client"], Way::Idle);
    check(&["--model", "m"], open(None));
    check(&["--model", "m", "--name", "home"], open(Some("home")));
    check(&["--name", "home"], open(Some("home")));
    check(&["--model", "m", "--no-mesh"], Way::Alone);
    check(&["--no-mesh"], Way::Alone);
    check(&["--join", &text], join());
    check(&["--join", &text.to_uppercase(), "--model", "m"], join());
    check(&["--client", "--join", &text], join());
    check(&["--rejoin"], Way::Rejoin);
    check(&["--rejoin", "--model", "m"], Way::Rejoin);
}

#[test]
fn hidden_states_travel_as_they_are_unless_asked_otherwise() {
    let check = |file, variable: &str, flags: &[&str], expected: Precision| {
        let variables = [("MESH_LLM_SPLIT_PRECISION", variable)];
        let settings = settings(file, &variables, flags);
        assert_eq!(settings.node.split_precision, expected);
    };
    let file = Some("[mesh]\nsplit_precision = 'f16'");
    check(None, "", &[], Precision::F32);
    check(file, "", &[], Precision::F16);
    check(None, "f16", &[], Precision::F16);
    check(file, "f32", &[], Precision::F32);
    check(None, "f32", &["--split-precision", "f16"], Precision::F16);
    let wrong = Machine::new(None, &[("MESH_LLM_SPLIT_PRECISION", "f8")]);
    assert!(wrong.resolve(&[]).is_err());
}

#[test]
fn what_is_said_higher_up_about_the_mesh_wins_as_a_whole() {
    let text = ticket().to_string();
    let file = format!("join = '{text}'\nmodel = 'm'");
    let check = |flags: &[&str], is_expected: fn(&Settings) -> bool| {
        let settings = settings(Some(&file), &[], flags);
        assert!(is_expected(&settings), "{flags:?}: {:?}", settings.way);
    };
    check(&[], |settings| matches!(settings.way, Way::Join(_)));
    check(&["--no-mesh"], |settings| settings.way == Way::Alone);
    check(&["--rejoin"], |settings| settings.way == Way::Rejoin);
    check(&["--rejoin=false"], |settings| {
        matches!(settings.way, Way::Join(_))
    });
    check(
        &["--name", "home"],
        |settings| matches!(&settings.way, Way::Open { name } if name.as_deref() == Some("home")),
    );
    // A client runs no model, whatever the file says; and the other way round.
    check(&["--client"], |settings| settings.node.models.is_empty());
    let client = settings(Some("client = true"), &[], &["--model", "m"]);
    assert_eq!(client.node.models, [ModelSource::Named("m".into())]);
    assert_eq!(client.node.mesh.role, Role::Serve);
}

#[test]
fn a_client_keeps_its_key_only_if_asked() {
    let keeps = |flags: &[&str]| settings(None, &[], flags).node.mesh.home.is_some();
    assert!(keeps(&[]));
    assert!(!keeps(&["--client"]));
    assert!(keeps(&["--client", "--keep-key"]));
    // It comes back with the key that it had.
    assert!(keeps(&["--client", "--rejoin"]));
    let machine = Machine::new(None, &[]);
    let mesh = machine.resolve(&[]).unwrap().node.mesh;
    assert_eq!(mesh.home.as_deref(), Some(machine.home.path()));
}

#[test]
fn the_network_can_be_set_everywhere() {
    let defaults = settings(None, &[], &[]).node.mesh;
    assert_eq!(defaults.network.relays, Relays::Public);
    assert_eq!((defaults.network.port, defaults.network.ip), (0, None));
    assert!(defaults.network.local_discovery);
    assert_eq!(defaults.clients_max, 256);
    assert_eq!(
        (defaults.node_name.as_str(), defaults.region.as_str()),
        ("ada-pc", "")
    );

    let file = "
        node_name = 'attic'
        [mesh]
        region = ' eu\tnorth '
        max-clients = 3
        [network]
        relays = ['https://a.example', 'https://b.example']
        bind_port = 4000
        bind_ip = '127.0.0.1'
        no_mdns = true
    ";
    let mesh = settings(Some(file), &[], &[]).node.mesh;
    let own = ["https://a.example", "https://b.example"].map(str::to_owned);
    assert_eq!(mesh.network.relays, Relays::Own(own.to_vec()));
    assert_eq!(mesh.network.port, 4000);
    assert_eq!(mesh.network.ip, Some([127, 0, 0, 1].into()));
    assert!(!mesh.network.local_discovery);
    assert_eq!(
        (mesh.node_name.as_str(), mesh.region.as_str()),
        ("attic", "eunorth")
    );
    assert_eq!(mesh.clients_max, 3);

    // A variable and a flag take the file's place.
    let variables = [("MESH_LLM_RELAY", "https://c.example, https://d.example")];
    let relays = |flags: &[&str]| {
        settings(Some(file), &variables, flags)
            .node
            .mesh
            .network
            .relays
    };
    let theirs = ["https://c.example", "https://d.example"].map(str::to_owned);
    assert_eq!(relays(&[]), Relays::Own(theirs.to_vec()));
    assert_eq!(relays(&["--no-relay"]), Relays::None);
    let flags = ["--relay", "https://e.example"];
    assert_eq!(
        relays(&flags),
        Relays::Own(vec!["https://e.example".into()])
    );
}

#[test]
fn every_setting_may_stand_in_its_table() {
    let file = "
        [models]
        model = 'm'
        models_dir = '/models'
        [api]
        port = 1
        no_console = true
        [output]
        log_level = 'debug'
    ";
    let settings = settings(Some(file), &[], &[]);
    assert_eq!(settings.node.models, [ModelSource::Named("m".into())]);
    assert_eq!(settings.node.models_dirs[0], Path::new("/models"));
    assert_eq!((settings.port, settings.console), (1, ConsolePort::Off));
    assert_eq!(settings.log_level.as_deref(), Some("debug"));
}

#[test]
fn the_console_has_a_usual_port() {
    let console = |flags: &[&str]| settings(Some("no_console = true"), &[], flags).console;
    assert_eq!(console(&[]), ConsolePort::Off);
    assert_eq!(console(&["--console", "0"]), ConsolePort::Asked(0));
    assert_eq!(
        console(&["status", "--console", "5"]),
        ConsolePort::Asked(5)
    );
    let usual = settings(None, &[], &[]).console;
    assert_eq!(
        (usual, usual.first_choice()),
        (ConsolePort::Usual, Some(3131))
    );
}

#[test]
fn a_machine_without_a_name_is_called_something() {
    let name = |flags: &[&str]| settings(None, &[], flags).node.mesh.node_name;
    assert_eq!(name(&["--node-name", "\u{1b}[31mred"]), "[31mred");
    assert_eq!(name(&["--node-name", " "]), "unnamed");
    assert_eq!(name(&["--node-name", &"x".repeat(99)]), "x".repeat(32));
}
