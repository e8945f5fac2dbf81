// Writes a line per input line; see tests/receiver/toolchains.py.
package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"verifiers/webhook"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		for place, field := range fields {
			decoded, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(field, "-"))
			fields[place] = string(decoded)
		}
		now, _ := strconv.ParseInt(fields[2], 10, 64)
		headers := http.Header{}
		for place, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			if fields[4+place] != "" {
				headers.Set(name, fields[4+place])
			}
		}
		fmt.Println(webhook.Verify(fields[1], []byte(fields[3]), headers, time.Unix(now, 0)))
	}
}
