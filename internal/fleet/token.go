package fleet

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

// tokenPrefix lets secret scanners recognise a token in a log or a repository.
const tokenPrefix = "rnl_"

// NewToken makes an operator's token of 256 bits from random.
func NewToken(random io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// HashToken is what is stored of a token. The token has 256 random bits, so a
// plain hash can't be searched. A text that NewToken can't have made is refused:
// an operator's own word would not have those bits.
func HashToken(token string) (Digest, error) {
	body, ok := strings.CutPrefix(token, tokenPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if !ok || err != nil || len(b) != 32 || strings.ContainsAny(body, "\r\n") {
		return Digest{}, Errorf(CodeUnauthenticated, "the token is not valid")
	}
	return sha256.Sum256([]byte(token)), nil
}
