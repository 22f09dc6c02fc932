package rig

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"time"

	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// PollPath is what a v1 device asks whether there is something.
const PollPath = v1.PathManifest

// ChunkPath is what it asks for a chunk.
func ChunkPath(n int) string { return v1.PathChunk + "?chunk_number=" + strconv.Itoa(n) }

// V1Device is a device's side of the v1 wire.
type V1Device struct {
	id    string
	mac   hash.Hash
	nonce uint64
}

// V1Device is device i.
func (f *Fleet) V1Device(i int) *V1Device {
	key := Secret(i)
	return &V1Device{DeviceID(i), hmac.New(sha256.New, key[:]), firstNonce()}
}

// Get is its next request.
func (d *V1Device) Get(path string) Request {
	d.nonce++
	n, t := strconv.FormatUint(d.nonce, 10), strconv.FormatInt(time.Now().Unix(), 10)
	d.mac.Reset()
	fmt.Fprint(d.mac, path, n, t)
	return Request("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nDevice-ID: " + d.id + "\r\nX-Nonce: " + n + "\r\nX-Timestamp: " + t +
		"\r\nX-MAC: " + hex.EncodeToString(d.mac.Sum(nil)) + "\r\n\r\n")
}
