use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::admission::{Authority, Invitations, Invite, Membership, Trust};
use crate::{Addresses, Role};

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path().join("home"));
    (dir, state)
}

#[test]
fn makes_a_private_key_once_and_replaces_it_on_demand() {
    let (_dir, state) = state();
    let key = state.key().unwrap();
    let path = state.path().join("key");
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(state.key().unwrap().to_bytes(), key.to_bytes());
    let rotation = state.rotate_key().unwrap();
    assert_eq!(rotation.before, Some(signature::node_of(&key)));
    assert_eq!(rotation.after, signature::node_of(&state.key().unwrap()));
    assert_ne!(rotation.before, Some(rotation.after));
    assert_eq!(
        fs::read_dir(state.path()).unwrap().count(),
        1,
        "no leftovers"
    );
}

#[test]
fn refuses_a_key_of_another_size_or_open_to_others() {
    let (_dir, state) = state();
    state.key().unwrap();
    let path = state.path().join("key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = state.key().unwrap_err().to_string();
    assert!(
        error.contains("mode 640") && error.contains("chmod 600"),
        "{error}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, b"short").unwrap();
    let error = state.key().unwrap_err().to_string();
    assert!(
        error.contains("5 bytes") && error.contains("rotate-key"),
        "{error}"
    );
    let rotation = state.rotate_key().unwrap();
    assert_eq!(rotation.before, None);
    assert_eq!(rotation.after, signature::node_of(&state.key().unwrap()));
}

#[test]
fn threads_that_start_at_once_agree_on_a_key() {
    let (_dir, state) = state();
    let keys: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| state.key().unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap().to_bytes())
            .collect()
    });
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn remembers_its_own_mesh_and_the_last_one() {
    let (_dir, state) = state();
    let mut rng = rand::rng();
    assert_eq!(state.last_mesh().unwrap(), None);
    let own = state.unnamed_mesh(&mut rng).unwrap();
    assert_eq!(state.unnamed_mesh(&mut rng).unwrap(), own);
    state.set_last_mesh(own).unwrap();
    assert_eq!(state.last_mesh().unwrap(), Some(own));
    state.forget_unnamed_mesh().unwrap();
    assert_ne!(state.unnamed_mesh(&mut rng).unwrap(), own);
}

#[test]
fn a_damaged_id_is_reported_once_and_kept_aside() {
    let (_dir, state) = state();
    state.key().unwrap();
    fs::write(state.path().join("mesh-id"), "rubbish").unwrap();
    let error = state
        .unnamed_mesh(&mut rand::rng())
        .unwrap_err()
        .to_string();
    assert!(error.contains("mesh-id.damaged"), "{error}");
    assert!(state.path().join("mesh-id.damaged").exists());
    state.unnamed_mesh(&mut rand::rng()).unwrap();
}

#[test]
fn mesh_files_read_back() {
    let (_dir, state) = state();
    let key = state.key().unwrap();
    let root = signature::node_of(&key);
    let mesh = MeshId::named("home", root);
    let files = state.mesh(mesh);
    assert_eq!(files.membership().unwrap(), None);
    let stored = StoredMembership {
        membership: Membership::of_root(mesh, root),
        name: Some("home".into()),
    };
    files.set_membership(&stored).unwrap();
    assert_eq!(files.membership().unwrap(), Some(stored.clone()));
    assert_eq!(state.meshes().unwrap(), vec![mesh]);

    let socket = "10.0.0.1:4000".parse().unwrap();
    let known = vec![(root, Addresses::new([socket], None))];
    files.set_bootstrap(&known).unwrap();
    assert_eq!(files.bootstrap().unwrap(), known);

    let mut book = Invitations::default();
    let authority = Authority {
        key,
        membership: stored.membership,
    };
    let invite = Invite {
        role: Role::Client,
        ..Invite::default()
    };
    book.invite(&authority, None, invite, known, 1, &mut rand::rng())
        .unwrap();
    files.set_invitations(&book).unwrap();
    assert_eq!(files.invitations().unwrap(), book);
}

#[test]
fn damaged_mesh_files_are_kept_aside_and_then_empty() {
    let (_dir, state) = state();
    let root = signature::node_of(&state.key().unwrap());
    let mesh = MeshId::named("home", root);
    let files = state.mesh(mesh);
    files.set_bootstrap(&[]).unwrap();
    let mut trust = Trust::new(mesh, root, Default::default());
    for name in ["membership", "bootstrap", "invitations", "revocations"] {
        fs::write(files.dir().join(name), [0xff; 40]).unwrap();
        let mut load = || match name {
            "membership" => files.membership().map(drop),
            "bootstrap" => files.bootstrap().map(drop),
            "invitations" => files.invitations().map(drop),
            _ => files.load_revocations(&mut trust),
        };
        let error = load().unwrap_err().to_string();
        assert!(error.contains(&format!("{name}.damaged")), "{error}");
        load().unwrap();
    }
}
