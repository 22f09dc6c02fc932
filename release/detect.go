package release

import "bytes"

// FileHead is how many bytes IsFile looks at.
const FileHead = 16

// IsFile says whether a file that begins with head is meant as a release file:
// its first member's name says so. An image of an ESP chip begins with 0xE9.
func IsFile(head []byte) bool {
	return bytes.HasPrefix(head, []byte(nameKeyList+"\x00")) || bytes.HasPrefix(head, []byte(nameManifest+"\x00"))
}
