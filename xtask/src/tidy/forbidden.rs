//! Strings no file may hold: absolute paths of the machine it was written on.

use super::Finding;
use super::tree::SourceFile;

/// A path this short (`/`, `/a`) would match by chance.
const MACHINE_PATH_BYTES_MIN: usize = 4;

/// `machine_paths` are absolute folders of this machine.
pub(super) fn check(files: &[SourceFile], machine_paths: &[String]) -> Vec<Finding> {
    let paths: Vec<&String> = machine_paths
        .iter()
        .filter(|path| path.len() >= MACHINE_PATH_BYTES_MIN)
        .collect();
    files
        .iter()
        .flat_map(|file| {
            file.text
                .lines()
                .enumerate()
                .map(move |(index, line)| (file, index + 1, line))
        })
        .filter(|(_, _, line)| paths.iter().any(|path| line.contains(path.as_str())))
        .map(|(file, line, _)| {
            Finding::at(
                &file.path,
                line,
                "names a folder of this machine; hint: make it relative",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::samples::file;
    use super::*;

    #[test]
    fn finds_the_line() {
        let files = [file("README.md", "a\nsee /home/me/checkout/docs\n")];
        let found = check(&files, &["/home/me/checkout".to_owned(), "/".to_owned()]);
        assert_eq!(
            found,
            [Finding::at(
                "README.md",
                2,
                "names a folder of this machine; hint: make it relative"
            )]
        );
    }
}
