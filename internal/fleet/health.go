package fleet

import (
	"encoding/json"
	"fmt"
)

// Health is how a device is doing, as it says with a poll, if its board does. It is
// comparable; zero members are not said. It changes with every poll and so is written
// behind: what a crash of the server loses comes again with the next poll.
type Health struct {
	FreeRAM int64 `json:"free_ram,omitempty"` // bytes
	// BootReason is why the chip started last: one of BootReasons.
	BootReason string `json:"boot_reason,omitempty"`
	Battery    int    `json:"battery,omitempty"` // percent, 1 to 100
	Signal     int    `json:"signal,omitempty"`  // of its radio, dBm, below 0
}

// BootReasons by their numbers on the wire (docs/format/exchange.md); 0 is not said.
var BootReasons = [...]string{"", "power-on", "brown-out", "panic", "watchdog", "software", "deep-sleep", "external"}

// Text is how it is stored: JSON, "" for nothing.
func (h Health) Text() string {
	if h == (Health{}) {
		return ""
	}
	b, err := json.Marshal(h)
	if err != nil {
		panic(err) // numbers and a word
	}
	return string(b)
}

// ParseHealth reads what Text wrote.
func ParseHealth(text string) (h Health, err error) {
	if text == "" {
		return h, nil
	}
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		return Health{}, fmt.Errorf("health: %w", err)
	}
	return h, nil
}
