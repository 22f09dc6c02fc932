package fleet

import (
	"encoding/json"
	"fmt"
)

// FactoryImage is the running slot of a device that runs its factory image.
const FactoryImage = 255

// NativeAsk is what a poll says of what the device has and can take.
type NativeAsk struct {
	Wire            Wire     `json:"wire"` // WireSigned or WireMACOnly
	Hardware        []byte   `json:"hardware"`
	ESP             bool     `json:"esp,omitempty"` // it has a chip id, and takes ESP-IDF images only
	Chip            uint16   `json:"chip,omitempty"`
	Epoch           uint32   `json:"epoch,omitempty"`    // of what it confirmed last
	Sequence        uint32   `json:"sequence,omitempty"` // the same
	SecurityVersion uint32   `json:"security_version,omitempty"`
	Slots           []uint32 `json:"slots"`    // sizes, bytes
	Running         int      `json:"running"`  // slot, or FactoryImage
	Envelope        uint32   `json:"envelope"` // the largest that it takes, bytes, as the next
	Chunk           uint32   `json:"chunk"`
	Version         string   `json:"version,omitempty"` // that it says it runs
	Image           []byte   `json:"image,omitempty"`   // SHA-256 of what it confirmed and runs; empty: not said
	// What its chip and bootloader have, as it says.
	SecureBoot      bool    `json:"secure_boot,omitempty"`
	FlashEncryption bool    `json:"flash_encryption,omitempty"`
	Rollback        bool    `json:"rollback,omitempty"`       // the bootloader goes back by itself
	SecureVersion   *uint32 `json:"secure_version,omitempty"` // of the efuses; nil: it has none
	Derived         Derived `json:"derived,omitzero"`         // streams that it takes beside raw ones

	InProgress uint32 `json:"-"` // sequence of the release in progress; 0: none
	Health     Health `json:"-"` // it changes with every poll: kept apart
}

// Target is the slot that the device writes to, as core/device picks it: the one after
// that which it runs from, the first after the last. ok is false where there is none.
func (a NativeAsk) Target() (slot int, ok bool) {
	n := len(a.Slots)
	if n == 0 || a.Running >= n {
		return 0, n > 0 // the factory image runs
	}
	slot = (a.Running + 1) % n
	return slot, slot != a.Running
}

// Text is what of an ask is kept with the device.
func (a *NativeAsk) Text() string {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // numbers, bytes and a text: there is nothing that JSON has not
	}
	return string(b)
}

// ParseAsk reads what Text wrote; nil for a device that was not asked, or whose text is no ask.
func ParseAsk(text string) *NativeAsk {
	a := &NativeAsk{}
	if text == "" || json.Unmarshal([]byte(text), a) != nil {
		return nil
	}
	return a
}

// asking is the device as it is by what it says now: a poll and who asks why later see the same.
func asking(d *Device, a *NativeAsk) *Device {
	now := *d
	now.Hardware = HardwareText(a.Hardware)
	now.Epoch, now.Sequence, now.SecurityVersion = a.Epoch, a.Sequence, a.SecurityVersion
	now.Slots, now.RunningSlot = len(a.Slots), a.Running
	now.Assurance = AssuranceOwn // of a native key there is one device
	if a.Version != "" {
		now.RunningVersion = a.Version
	}
	if now.StrongestWire.WeakerThan(a.Wire) {
		now.StrongestWire = a.Wire
	}
	if a.Health != (Health{}) {
		now.Health = a.Health
	}
	return &now
}

// HardwareText is a hardware's name for people: as it is if it is printable ASCII,
// else in hex.
func HardwareText(p []byte) string {
	for _, c := range p {
		if c < ' ' || c > '~' {
			return fmt.Sprintf("%x", p)
		}
	}
	return string(p)
}
