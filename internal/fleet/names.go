package fleet

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what is named and said. A name that is stored once is copied into
// every answer, table and log line, so each has a bound.
const (
	MaxProduct = 64 // bytes
	// MaxVersion is in bytes. 64 keeps a table's column and a log line whole and leaves room
	// for "git describe" with a branch name; a v1 device keeps the first bytes that it has room
	// for (31 in most fielded clients), so distinct versions should differ there.
	MaxVersion  = 64
	MaxDeviceID = 64 // bytes

	// DefaultChunkSize of images, bytes: it fits every client in the field.
	DefaultChunkSize = 1024

	// MinChunkSize and MaxChunkSize are in bytes: below, the overhead of a request is many times
	// the payload; above, a chunk with its base64 no longer fits the RAM that the smallest
	// fielded clients set aside (20 KB for 16 KiB chunks).
	MinChunkSize = 256
	MaxChunkSize = 16384

	// SectorSize is the erase unit of the flash chips in the field, in bytes (spec of NOR flash,
	// W25Q32): resume works in whole sectors.
	SectorSize = 4096

	// MaxText bounds a device's own words (an error, a reason) in bytes.
	MaxText = 256
)

// ValidateProduct accepts "name" or "vendor/name" of [A-Za-z0-9._-].
func ValidateProduct(s string) error {
	if s == "" {
		return Errorf(CodeInvalid, "product has no name")
	}
	if len(s) > MaxProduct {
		return Errorf(CodeInvalid, "product name has %d bytes, at most %d are allowed", len(s), MaxProduct)
	}
	parts := strings.Split(s, "/")
	if len(parts) > 2 {
		return &Error{Code: CodeInvalid, Message: fmt.Sprintf("product %q has more than one slash", s), Hint: "write name or vendor/name"}
	}
	for _, part := range parts {
		if part == "" {
			return &Error{Code: CodeInvalid, Message: fmt.Sprintf("product %q has an empty part", s), Hint: "write name or vendor/name"}
		}
		// A part of dots alone would be a step in a path, should the name ever become one.
		if strings.Trim(part, ".") == "" {
			return Errorf(CodeInvalid, "product %q has a part of dots alone", s)
		}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-/", c) >= 0 {
			continue
		}
		return &Error{Code: CodeInvalid, Message: fmt.Sprintf("product %q has %q at byte %d", s, rune(c), i),
			Hint: "letters, digits, '.', '_', '-' and one '/' are allowed"}
	}
	return nil
}

// ValidateVersion accepts printable text without spaces at its ends.
func ValidateVersion(s string) error {
	if s == "" {
		return Errorf(CodeInvalid, "version is empty")
	}
	if len(s) > MaxVersion {
		return Errorf(CodeInvalid, "version has %d bytes, at most %d are allowed", len(s), MaxVersion)
	}
	if !utf8.ValidString(s) {
		return Errorf(CodeInvalid, "version is not UTF-8")
	}
	if strings.TrimSpace(s) != s {
		return Errorf(CodeInvalid, "version %q has a space at an end", s)
	}
	for i, r := range s {
		if !unicode.IsPrint(r) {
			return Errorf(CodeInvalid, "version %q has a character that can't be printed at byte %d", s, i)
		}
	}
	return nil
}

// AllDevices is the name by which an order means every device; none may bear it.
const AllDevices = "all"

// ValidateDeviceID accepts printable ASCII without spaces.
func ValidateDeviceID(s string) error {
	if s == "" {
		return Errorf(CodeInvalid, "device has no id")
	}
	if len(s) > MaxDeviceID {
		return Errorf(CodeInvalid, "device id has %d bytes, at most %d are allowed", len(s), MaxDeviceID)
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return Errorf(CodeInvalid, "device id %q has %q at byte %d: only printable ASCII without spaces is allowed", s, s[i:i+1], i)
		}
	}
	if strings.Trim(s, ".") == "" {
		return Errorf(CodeInvalid, "device id %q has dots alone: in the API's paths it would be a step", s)
	}
	if s == AllDevices {
		return Errorf(CodeInvalid, "device id %q is taken: in an order it means every device", s)
	}
	return nil
}

// CheckChunkSize refuses what no device can take. warning, if not empty, is what
// a size costs that is allowed: its first clause is the reason, for people.
func CheckChunkSize(n int) (warning string, err error) {
	if n < MinChunkSize || n > MaxChunkSize {
		return "", Errorf(CodeInvalid, "chunk size is %d bytes, allowed are %d to %d", n, MinChunkSize, MaxChunkSize)
	}
	if SectorSize%n != 0 && n%SectorSize != 0 {
		return fmt.Sprintf("chunk size %d neither divides %d nor is a multiple of it: devices can't resume a download after a power cut; 1024 and 4096 are good choices",
			n, SectorSize), nil
	}
	return "", nil
}

// isClean says of most texts that CleanText would not change them.
func isClean(s string, limit int) bool {
	if len(s) > limit || strings.HasPrefix(s, " ") || strings.HasSuffix(s, " ") || strings.Contains(s, "  ") {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// CleanText makes a device's words fit for a table, a terminal and a log: valid
// UTF-8, one line, nothing that can't be printed, at most limit bytes and cut
// between characters.
func CleanText(s string, limit int) string {
	// What is behind the cut is not looked at: a report's text may be as long as a body.
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	if isClean(s, limit) {
		return s
	}
	var b strings.Builder
	space := false
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			if unicode.IsSpace(r) || unicode.IsControl(r) {
				r = ' '
			} else {
				r = '\uFFFD'
			}
		}
		if r == ' ' {
			space = b.Len() > 0
			continue
		}
		n := utf8.RuneLen(r)
		if space {
			n++
		}
		if b.Len()+n > limit {
			break
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
