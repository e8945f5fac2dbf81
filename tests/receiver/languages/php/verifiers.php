<?php
// Writes a line per input line; see tests/receiver/toolchains.py. The argument is the snippet of docs/receiving.md.
error_reporting(E_ALL);
require $argv[1];

while (($line = fgets(STDIN)) !== false) {
    $fields = array_map(
        fn ($field) => $field === '-' ? null : base64_decode($field),
        explode("\t", rtrim($line, "\n")),
    );
    $names = ['webhook-id', 'webhook-timestamp', 'webhook-signature'];
    $headers = array_filter(array_combine($names, array_slice($fields, 4, 3)), fn ($value) => $value !== null);
    echo verify($fields[1], $fields[3], $headers, (int) $fields[2]) ? "true\n" : "false\n";
}
