"""Fixed limits of the server. Each name contains its unit. The limits that operators can set are in `config/`."""

# Events
EVENT_DATA_BYTES_MAX = 256 * 1024
# This is the lowest limit that Python allows. The time to parse an integer grows with the square of its length.
EVENT_INTEGER_DIGITS_MAX = 640
BATCH_EVENTS_MAX = 1000
BATCH_BODY_BYTES_MAX = 8 * 1024 * 1024
# The server pauses its checks of a batch after this time, so that other requests can continue.
BATCH_CHECK_SECONDS_MAX = 0.01
EVENT_TYPE_NAME_CHARACTERS_MAX = 128
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255
BATCH_KEY_CHARACTERS_MAX = 251
"""Maximum length of the idempotency key of a batch. The key of an event adds its position, such as `/999`."""
ORDERING_KEY_CHARACTERS_MAX = 128
OBJECT_ID_CHARACTERS_MAX = 128
# The body of a request with a single event: the event's data and its other fields.
EVENT_BODY_BYTES_MAX = EVENT_DATA_BYTES_MAX + 16 * 1024
# The body of any other request to the HTTP API.
REQUEST_BODY_BYTES_MAX = 1024 * 1024
# The request line and headers, without the part from the first read, which returns up to 256 KiB.
REQUEST_HEADERS_BYTES_MAX = 64 * 1024
# Request bodies that are not complete yet.
# The first limit is a total for each group: operators, service keys, accounts, and anonymous visitors.
# The second limit applies to each account.
UNFINISHED_BODIES_BYTES_MAX = 32 * 1024 * 1024
UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX = 4 * 1024 * 1024
# After an early response, the server reads and discards the rest of the body, so that the client gets the response.
DISCARDED_BODY_BYTES_MAX = 32 * 1024 * 1024
# The time limit starts when the server has closed its side of the connection.
LINGER_SECONDS_MAX = 5
LINGERING_CONNECTIONS_MAX = 200

# The entries in a list or an object in a request. The server rejects a field with more entries.
REQUEST_ENTRIES_MAX = 1_000
# The values of one query parameter that filters a list, such as `status`.
FILTER_VALUES_MAX = 100
# The lists and objects in one request. Each of them adds garbage collection time.
REQUEST_CONTAINERS_MAX = 20_000
# The problems that the response to one request lists.
PROBLEMS_LISTED_MAX = 100

# The limits on one request from the reader of the emitter outbox. The reader sends a larger row in a separate request.
OUTBOX_BATCH_ROWS_MAX = 500
OUTBOX_BATCH_BYTES_MAX = 1024 * 1024
OUTBOX_REQUEST_SECONDS_MAX = 10.0
# The reader's shortest and longest waits: between two reads of an empty outbox, and after a failure (before jitter).
OUTBOX_POLL_SECONDS_MIN = 0.01
OUTBOX_POLL_SECONDS_MAX = 1.0
OUTBOX_BACKOFF_SECONDS_MIN = 0.2
OUTBOX_BACKOFF_SECONDS_MAX = 10.0
# The interval between two searches for rows to unblock, and how many rows one search checks and unblocks.
OUTBOX_UNBLOCK_EVERY_SECONDS = 2.0
OUTBOX_AWAITED_MAX = 5_000
OUTBOX_UNBLOCKED_MAX = 1_000
# A count of the rows in an outbox stops at this number.
OUTBOX_COUNTED_MAX = 10_000

# Event types
JSON_DEPTH_MAX = 64
SCHEMA_CHARACTERS_MAX = 64 * 1024
SCHEMA_PLACES_MAX = 5_000
# The analysis of a schema stops after this many nested schemas, or this many steps to find nested schemas.
SCHEMA_STATES_MAX = 5_000
SCHEMA_STEPS_MAX = 20_000
# The estimated time to check an event's data on the event loop, and to collect the errors if the data does not match.
SCHEMA_CHECK_NS_MAX = 50_000_000
SCHEMA_DETAILS_NS_MAX = 25_000_000
SCHEMA_DETAILS_BYTES_MAX = 16 * 1024
SCHEMA_PROBLEMS_MAX = 20
# The backtracking steps of a stored pattern. New patterns never backtrack.
PATTERN_BACKTRACKS_MAX = 1_000

# Endpoints
URL_CHARACTERS_MAX = 2048
DESCRIPTION_CHARACTERS_MAX = 1000
SUBSCRIPTION_PATTERNS_MAX = 100
# The size of a filter as JSON, its levels of nested objects, and the values and operators in all its lists.
FILTER_BYTES_MAX = 8 * 1024
FILTER_LEVELS_MAX = 8
FILTER_ALTERNATIVES_MAX = 64
# The steps to evaluate one filter, and all filters, for an event. A step takes about 0.2 µs.
FILTER_STEPS_MAX = 30_000
FILTERS_STEPS_MAX = 150_000
# A preview shows the result of a filter for this many of the newest events.
FILTER_PREVIEW_EVENTS_DEFAULT = 20
FILTER_PREVIEW_EVENTS_MAX = 100
CUSTOM_HEADERS_MAX = 20
CUSTOM_HEADER_NAME_CHARACTERS_MAX = 64
CUSTOM_HEADER_VALUE_CHARACTERS_MAX = 1024
ENDPOINTS_PER_ACCOUNT_MAX = 1_000
ENDPOINT_IN_FLIGHT_MAX = 256
# The attempts in flight from an account to one host. An endpoint with a higher limit raises this limit.
HOST_IN_FLIGHT_MAX = 64
# The text of a search for endpoints by URL or description.
ENDPOINT_TEXT_CHARACTERS_MAX = 200
RATE_LIMIT_PER_SECOND_MAX = 10_000
# The timeout and the retry schedule in the settings of an endpoint.
ENDPOINT_TIMEOUT_MS_MIN = 1_000
ENDPOINT_TIMEOUT_MS_MAX = 30_000
ENDPOINT_RETRIES_MAX = 20
ENDPOINT_RETRY_DELAY_MS_MIN = 1_000
ENDPOINT_RETRY_DELAY_MS_MAX = 7 * 86_400_000
ENDPOINT_RETRY_DELAYS_TOTAL_MS_MAX = 14 * 86_400_000
SECRET_CHARACTERS_MIN = 16
SECRET_CHARACTERS_MAX = 256
SECRET_KEY_BYTES_MIN = 24
SECRET_KEY_BYTES_MAX = 64
SECRET_KEY_BYTES_GENERATED = 32
# How long the old secret stays valid after a rotation.
SECRET_OVERLAP_SECONDS_DEFAULT = 24 * 3600
SECRET_OVERLAP_SECONDS_MAX = 7 * 24 * 3600
# The limits on an endpoint's authentication. The certificate can be a chain.
# A longer RSA key would delay the event loop in every TLS handshake.
CLIENT_ID_CHARACTERS_MAX = 512
CLIENT_SECRET_CHARACTERS_MAX = 1024
OAUTH_SCOPE_CHARACTERS_MAX = 1024
CLIENT_CERTIFICATE_CHARACTERS_MAX = 32 * 1024
CLIENT_KEY_CHARACTERS_MAX = 16 * 1024
CLIENT_KEY_RSA_BITS_MAX = 4096
# The TLS contexts with client certificates that a process keeps in memory. Each uses about 1 MiB.
CLIENT_TLS_CONTEXTS_MAX = 64

# The counts of an endpoint's held deliveries and of its blocked deliveries stop at these numbers.
HELD_COUNTED_MAX = 1_000
BLOCKED_COUNTED_MAX = 1_000

# Accounts
NAME_CHARACTERS_MAX = 200
CONTACT_EMAILS_MAX = 10
EMAIL_CHARACTERS_MAX = 254

# `uid` and `metadata` of accounts and endpoints
UID_CHARACTERS_MAX = 128
METADATA_VALUES_MAX = 50
METADATA_BYTES_MAX = 4096

# Replays
REPLAY_RATE_PER_SECOND_DEFAULT = 50
REPLAY_RATE_PER_SECOND_MAX = 1_000
REPLAYS_UNFINISHED_PER_ACCOUNT_MAX = 100
# The unsettled deliveries of one replay. The limit is lower if the endpoint's concurrency limit and the rate are low.
REPLAY_OUTSTANDING_MAX = 200

# Erasures
ERASURE_EVENT_IDS_MAX = 1_000
ERASURES_UNFINISHED_PER_ACCOUNT_MAX = 20

# Above the first limit, the server deletes an account's oldest rejected events.
# A count of rejected events stops at the second limit.
REJECTED_EVENTS_PER_ACCOUNT_MAX = 10_000
REJECTED_EVENTS_COUNTED_MAX = 10_000
# The server truncates the subject, the other texts and the messages of a rejected event, and the list of its errors.
REJECTED_EVENT_SUBJECT_CHARACTERS_MAX = 256
REJECTED_EVENT_TEXT_CHARACTERS_MAX = 128
REJECTED_EVENT_MESSAGE_CHARACTERS_MAX = 300
REJECTED_EVENT_ERRORS_MAX = 20

# The listen streams of one process. The limits also apply, separately, to its live pages.
# With STREAMS_CROWDED_FROM or more streams, the limit per account is STREAMS_PER_ACCOUNT_CROWDED_MAX.
STREAMS_MAX = 200
STREAMS_PER_ACCOUNT_MAX = 25
STREAMS_CROWDED_FROM = 150
STREAMS_PER_ACCOUNT_CROWDED_MAX = 2

# Lists
PAGE_ITEMS_DEFAULT = 50
PAGE_ITEMS_MAX = 500
# The total size of the event bodies on a page. A page with large events contains fewer events.
PAGE_BODY_BYTES_MAX = 4 * 1024 * 1024

# One attempt
RESPONSE_HEADERS_BYTES_MAX = 32 * 1024
RESPONSE_BODY_BYTES_READ_MAX = 64 * 1024
RESPONSE_BODY_BYTES_STORED_MAX = 4 * 1024
# The response from a token URL. An access token with many claims can take up several KiB.
TOKEN_RESPONSE_BYTES_MAX = 16 * 1024
RESPONSE_HEADERS_BYTES_STORED_MAX = 4 * 1024
ERROR_CHARACTERS_MAX = 300
RETRY_AFTER_MS_MAX = 24 * 3600 * 1000

# The engine

# When the server stops, it waits at most this long for attempts in flight: the default attempt timeout and a margin.
# The shutdown takes at most 20 s in total.
DRAIN_MS_MAX = 16_000
COMMIT_ROWS_MAX = 1000
# A body of this size counts as a row, because storing it takes about as long as storing a row.
ROW_BODY_BYTES = 4096
# The rows of a small job. After a commit with a larger job, small jobs get a separate commit.
SMALL_JOB_ROWS_MAX = 500
# The changes from API requests in one commit. Each change takes about as long as 100 rows.
COMMIT_WRITES_MAX = 8
# The deliveries that wait in memory for a healthy endpoint. For other endpoints, the limit is their concurrency limit.
LANE_WAITING_MAX = 1024
# The bodies of deliveries that wait in lanes: for all accounts together, for each account and for each endpoint.
# Deliveries above these limits wait in the database. The last quarter of the memory is for accounts below
# ACCOUNT_LITTLE_BODY_BYTES_MAX. An endpoint below LANE_LITTLE_BODY_BYTES_MAX can add deliveries even if its account has
# reached the limit.
LANES_BODY_BYTES_MAX = 64 * 1024 * 1024
LANES_SHARED_BODY_BYTES_MAX = 48 * 1024 * 1024
ACCOUNT_LANES_BODY_BYTES_MAX = 16 * 1024 * 1024
ACCOUNT_LITTLE_BODY_BYTES_MAX = 256 * 1024
LANE_BODY_BYTES_MAX = 8 * 1024 * 1024
LANE_LITTLE_BODY_BYTES_MAX = 256 * 1024
# The limits on events that wait to be stored: for all accounts together, and for each account.
# Above these limits, the server rejects events with 503.
ACCEPTS_BODY_BYTES_MAX = 64 * 1024 * 1024
ACCEPTS_WAITING_MAX = 20_000
ACCOUNT_ACCEPTS_BODY_BYTES_MAX = 48 * 1024 * 1024
ACCOUNT_ACCEPTS_WAITING_MAX = 15_000
# The events and deliveries in one request, and in all waiting requests. Storing 10,000 rows takes about 200 ms.
GROUP_ROWS_MAX = 50_000
ACCEPTS_WAITING_ROWS_MAX = 100_000
ACCOUNT_ACCEPTS_WAITING_ROWS_MAX = 75_000
# The rows from one account's requests that the server stores at a time. The last request may exceed the limit.
ACCEPTS_TURN_ROWS_MAX = 500
# The same limit for batches with events for several accounts, which require an operator key or a service key.
BATCHES_TURN_ROWS_MAX = 2 * COMMIT_ROWS_MAX
# The size of the NATS stream, and how long the stream detects repeated messages.
STREAM_BYTES_MAX = 8 * 1024**3
STREAM_DUPLICATES_SECONDS = 120
# The size of the NATS stream of rejected events, and how long the stream keeps a message.
REJECTED_STREAM_BYTES_MAX = 1024**3
REJECTED_STREAM_SECONDS = 7 * 86_400
# The messages in one batch from the NATS stream. A process requests the next batch while it stores one.
STREAM_BATCH_MESSAGES_MAX = 500
STREAM_BATCH_BYTES_MAX = 8 * 1024 * 1024
# The message size that every NATS server must allow: one event and the sequence numbers of 1,000 endpoints.
STREAM_MESSAGE_BYTES_MAX = 384 * 1024
# The size of the events that share one NATS message, without the parts that can differ when a batch is repeated.
STREAM_SHARED_DATA_BYTES_MAX = 128 * 1024
# The size of a message with several events. It is higher, because the sequence numbers of the endpoints can differ.
STREAM_SHARED_MESSAGE_BYTES_MAX = 256 * 1024
LEASE_BATCH_MAX = 500
LEASE_BATCH_BODY_BYTES_MAX = 8 * 1024 * 1024
RELEASE_BATCH_MAX = 1_000
SETTLE_BATCH_MAX = 1_000
SETTLEMENTS_WAITING_MAX = 5_000
# The commands (cancel, resend and test) that wait for another process or were executed within the last minute.
COMMANDS_WAITING_MAX = 1_000
ACCOUNT_COMMANDS_WAITING_MAX = 100
# The server rounds due times up to a multiple of this time.
DUE_STEP_MS = 20
# The deliveries that the server does not attempt again before a restart, because it cannot store their outcomes.
PARKED_MAX = 10_000
# An attempt does not start unless its lease will last this much longer than the attempt timeout.
LEASE_LEFT_MS_MIN = 1_000
# The writes that are waiting for the database, except events and outcomes.
WRITES_WAITING_MAX = 1_000
# The documentation searches that are waiting or running. Each one takes a few milliseconds in a thread.
SEARCHES_WAITING_MAX = 20
