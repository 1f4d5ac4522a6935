//! What a machine is told as it boots.
#![no_main]

fuzz::program!(&[
    ("user_data", |bytes| fuzz::text(bytes, |text| os::fuzzing::file("user_data", text))),
    ("meta_data", |bytes| fuzz::text(bytes, |text| os::fuzzing::file("meta_data.json", text))),
    ("network_data", |bytes| fuzz::text(bytes, |text| os::fuzzing::file("network_data.json", text))),
    ("command_line", |bytes| fuzz::text(bytes, os::fuzzing::command_line)),
    ("drive", |bytes| drop(os::config::drive::label(bytes))),
    ("dhcp", os::fuzzing::converse),
    ("root", fuzz::round::<os::verity::Root>),
    ("image", |bytes| drop(serde_json::from_slice(bytes).map(|document| os::image::Image::read(&document)))),
    ("partitions", partitions),
]);

/// The head of a disk with a GPT: its sums are made right, for none would be guessed.
fn partitions(bytes: &[u8]) {
    const SECTOR: usize = 512;
    let mut disk = bytes.to_vec();
    disk.resize(80 * SECTOR, 0);
    let entries = crc32fast::hash(&disk[2 * SECTOR..34 * SECTOR]);
    let header = &mut disk[SECTOR..][..92];
    header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
    header[72..80].copy_from_slice(&2u64.to_le_bytes());
    header[80..88].copy_from_slice(b"\x80\0\0\0\x80\0\0\0");
    header[88..].copy_from_slice(&entries.to_le_bytes());
    header[16..20].fill(0);
    let sum = crc32fast::hash(header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    os::fuzzing::partitions(disk);
}
