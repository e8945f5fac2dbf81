# Writes a line per input line; see tests/receiver/toolchains.py. The argument is the snippet of docs/receiving.md.
require "openssl"
require ARGV.fetch(0)

# The article "Webhook secrets": the HMAC of the body, with the secret's text as the key, in constant time.
def verify_as_the_article(secret, body, signature)
  expected = "sha256=" + OpenSSL::HMAC.hexdigest(OpenSSL::Digest.new("sha256"), secret, body)
  OpenSSL.secure_compare(expected, signature)
end

$stdout.sync = true
$stdin.each_line(chomp: true) do |line|
  verb, secret, now, body, *headers, uplift = line.split("\t", -1).map { |field| field == "-" ? nil : field.unpack1("m") }
  named = %w[webhook-id webhook-timestamp webhook-signature].zip(headers).to_h.compact
  puts(verb == "article" ? verify_as_the_article(secret, body, uplift) : verify(secret, body, named, Integer(now)))
rescue TypeError, ArgumentError => error
  puts "error: #{error.message.lines.first}"
end
