//! Sockets of a process, as Linux tells.

/// UDP ports on which it listens, of IPv4 and IPv6.
pub(crate) fn udp_ports(pid: u32) -> Vec<u16> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = files
        .filter_map(|file| {
            let to = std::fs::read_link(file.ok()?.path()).ok()?;
            let inode = to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields[1].rsplit_once(':').unwrap();
        let is_own = sockets.iter().any(|inode| inode == fields[9]);
        is_own.then(|| u16::from_str_radix(port, 16).unwrap())
    };
    let table = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}"));
    let four = table("udp").unwrap();
    // A kernel without IPv6 has no such file.
    let six = table("udp6").unwrap_or_default();
    let lines = four.lines().skip(1).chain(six.lines().skip(1));
    lines.filter_map(port).collect()
}
