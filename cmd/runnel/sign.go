package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

const (
	signChunk   = 1024 // bytes: what the smallest devices take
	signConfirm = 300  // seconds of a trial: a start, a connection, a poll
)

// signing is what the three ways of `runnel sign` share.
type signing struct {
	signerFlags
	product, version, list, out string
	after, add, reissue         string
	sequence, security          uint32
	confirm                     uint32
	slot, address, format       string
	chunks                      []uint
	hardware                    []string
	noContact, yes, force       bool
	deriving                    deriving

	cmd   *cobra.Command
	trust *release.Trust // the key list that counts
	by    release.Signer // once it was asked for
}

func newSignCmd() *cobra.Command {
	s := &signing{}
	cmd := &cobra.Command{
		Use:   "sign IMAGE",
		Short: "Make a release file: the image, its signed manifest, the key list",
		Long: `Checks the image as the bootloader would, says what a device will be told about
it, asks, and signs. What it writes goes to a server with 'runnel push', or to
anybody: 'runnel verify' checks it.

A device takes a release whose sequence is above that of the one it has confirmed.
--after LAST.runnel takes the next number, and product, hardware and policy with it.
--add REL.runnel adds a second person's signature, and changes nothing else.
--reissue OLD.runnel signs old bytes with a higher sequence: the way back to them.
Without a terminal to ask on, --yes is needed.

An image that runs at one address only, as on a Cortex-M0, is linked once for each
slot: sign each build with its --slot, under one version and one sequence (the same
--after does that), and push them together. A raw image with Runnel's header is
checked as the boot stage would; it needs a word on its slot, which is "any" where the
chip shows each slot at the address that it runs at.

The image compressed is put beside it, and with --patch-from a patch from each image that
devices may run, under sheets that the same key signs; a server holds them against the
image. What saves less than --patch-min-saving is dropped. A server whose key may sign
streams makes patches from what its fleet runs by itself: see 'runnel keys server'.

Times: the manifest says when it was signed, SOURCE_DATE_EPOCH if that is set.`,
		Example: `  runnel sign firmware.bin --product acme/pump --version 1.2.0 --sequence 1 --key keys/release.key -o pump-1.2.0.runnel
  runnel sign firmware.bin --after pump-1.2.0.runnel --version 1.3.0 --key keys/release.key -o pump-1.3.0.runnel
  runnel sign slot0.bin --slot 0 --format raw --after pump-1.3.0-slot0.runnel --version 1.4.0 --key keys/release.key -o pump-1.4.0-slot0.runnel
  runnel sign firmware.bin --after pump-1.3.0.runnel --version 1.4.0 --key keys/release.key --patch-from pump-1.3.0.runnel --patch-from pump-1.2.0.runnel -o pump-1.4.0.runnel
  runnel sign --add pump-1.3.0.runnel --key bob.key
  runnel sign --reissue pump-1.2.0.runnel --after pump-1.3.0.runnel --key keys/release.key -o back.runnel`,
		Args: func(cmd *cobra.Command, args []string) error {
			if s.add != "" || s.reissue != "" {
				return noArgs(cmd, args)
			}
			return exactArgs("IMAGE")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s.cmd = cmd
			if err := s.check(); err != nil {
				return err
			}
			switch {
			case s.add != "":
				return s.addSignature()
			case s.reissue != "":
				return s.again()
			}
			return s.fresh(args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.product, "product", "", "the `product` it is for, as the key list names it")
	f.StringVar(&s.version, "version", "", "the `version` that people call it")
	f.Uint32Var(&s.sequence, "sequence", 0, "`number` from 1, above that of every release of the product before")
	f.StringVar(&s.list, "keylist", "", "`file` with the key list (default: the newer of keylist.cose beside the key and that in the old file)")
	f.StringArrayVar(&s.hardware, "hardware", nil, "`name` of the hardware, or 0x and hex digits; may be repeated (default: the chip of an ESP image, e.g. esp32c3)")
	f.StringVar(&s.slot, "slot", anySlot, "the `number` of the only slot that it may go into, 0 to 15, or any")
	f.StringVar(&s.address, "address", "", "where that slot begins, an `offset` in flash from 0 on, e.g. 0x4000: devices compare it with theirs")
	f.StringVar(&s.format, "format", "", "`format` of the image, esp or raw (default: esp where it begins like an ESP-IDF app image)")
	f.Uint32Var(&s.security, "security-version", 0, "`number` below which devices take nothing once this is confirmed (default: the key list's floor)")
	f.UintSliceVar(&s.chunks, "chunk-size", []uint{signChunk}, "`bytes` in a chunk, a power of two from 256 to 16384; may be given twice")
	f.Uint32Var(&s.confirm, "confirm-seconds", signConfirm, "`seconds` that a trial may take, 10 to 86400")
	f.BoolVar(&s.noContact, "no-contact", false, "let a device confirm without an answer of the server")
	f.StringVar(&s.after, "after", "", "the last release `file`: takes its sequence + 1, product, hardware and policy")
	f.StringVar(&s.add, "add", "", "release `file` to add a signature to")
	f.StringVar(&s.reissue, "reissue", "", "release `file` whose bytes are issued again")
	f.StringVarP(&s.out, "output", "o", "", "release `file` to write (with --add: default is the file itself)")
	f.BoolVar(&s.force, "force", false, "write over a file that exists")
	f.BoolVar(&s.yes, "yes", false, "don't ask")
	s.deriving.flags(f)
	s.signerFlags.flags(cmd, "the release key")
	return cmd
}

// check finds wrong use before anything is opened.
func (s *signing) check() error {
	given := s.cmd.Flags().Changed
	if s.add != "" {
		for _, f := range append([]string{"product", "version", "sequence", "keylist", "hardware", "slot", "address", "format", "security-version", "chunk-size", "confirm-seconds", "no-contact", "after", "reissue"}, signDeriveFlags...) {
			if given(f) {
				return usagef("--add adds a signature and changes nothing: --%s does not go with it", f)
			}
		}
		return nil
	}
	if s.out == "" {
		return usagef("--output is missing").withHint("name the release file to write: -o NAME.runnel")
	}
	if s.reissue != "" {
		for _, f := range append([]string{"product", "hardware", "slot", "address", "format", "chunk-size"}, signDeriveFlags...) {
			if given(f) {
				return usagef("--reissue takes the old bytes: --%s does not go with it", f)
			}
		}
	}
	if s.after == "" {
		if !given("sequence") {
			return usagef("--sequence is missing").withHint("1 for the first release of a product, or --after LAST.runnel")
		}
		if !given("product") && s.reissue == "" {
			return usagef("--product is missing")
		}
	}
	if given("sequence") && s.sequence == 0 {
		return usagef("--sequence begins at 1")
	}
	if s.reissue == "" && s.version == "" {
		return usagef("--version is missing")
	}
	var err error
	if s.product != "" {
		err = fleet.ValidateProduct(s.product)
	}
	if s.version != "" {
		err = errors.Join(err, fleet.ValidateVersion(s.version))
	}
	if err != nil {
		return usagef("%v", err)
	}
	return s.checkNumbers()
}

func (s *signing) checkNumbers() error {
	if len(s.chunks) > 2 || len(s.chunks) == 2 && s.chunks[0] == s.chunks[1] {
		return usagef("--chunk-size: one, or two that differ")
	}
	for _, c := range s.chunks {
		if c < manifest.MinChunk || c > manifest.MaxChunk || c&(c-1) != 0 {
			return usagef("--chunk-size %d: it is a power of two from %d to %d", c, manifest.MinChunk, manifest.MaxChunk)
		}
	}
	if s.confirm < manifest.MinConfirm || s.confirm > manifest.MaxConfirm {
		return usagef("--confirm-seconds %d: it is %d to %d", s.confirm, manifest.MinConfirm, manifest.MaxConfirm)
	}
	if !s.force && s.out != "" {
		if _, err := os.Lstat(s.out); err == nil {
			return usagef("%s exists", s.out).withHint("--force writes over it")
		}
	}
	if _, err := parseHardware(s.hardware); err != nil {
		return err
	}
	if err := s.deriving.check(); err != nil {
		return err
	}
	return s.checkPlace()
}

// anySlot is --slot of an image that may go into each.
const anySlot = "any"

// checkPlace judges --slot, --address and --format.
func (s *signing) checkPlace() error {
	slot, address, err := s.parsePlace()
	switch {
	case err != nil:
		return err
	case address != nil && slot == nil:
		return usagef("--address goes with the number of a slot: a server knows slots by their numbers")
	case s.cmd.Flags().Changed("format") && imageFormats[s.format] == 0:
		return usagef("--format %s: it is esp or raw", s.format)
	}
	return nil
}

var imageFormats = map[string]uint8{"esp": manifest.FormatESP, "raw": manifest.FormatRaw}

// parsePlace is what --slot and --address say; nil: any.
func (s *signing) parsePlace() (slot *uint8, address *uint32, err error) {
	if s.slot != anySlot {
		v, err := strconv.ParseUint(s.slot, 10, 8)
		if err != nil || v > manifest.MaxSlot {
			return nil, nil, usagef("--slot %s: it is 0 to %d, or any", s.slot, manifest.MaxSlot)
		}
		n := uint8(v)
		slot = &n
	}
	if s.cmd.Flags().Changed("address") {
		v, err := strconv.ParseUint(s.address, 0, 32)
		if err != nil {
			return nil, nil, usagef("--address %s is no 32-bit offset", s.address).withHint("write it like 0x4000")
		}
		n := uint32(v)
		address = &n
	}
	return slot, address, nil
}

// place says where an image may go. head is nil where the image has none. The address in
// it is the processor's, that in a manifest counts from where flash begins: which of
// the two a chip adds nobody here knows, so the one is not made from the other.
func (s *signing) place(path string, im *release.Image, head *boot.RawHeader) (err error) {
	if im.Slot, im.Address, err = s.parsePlace(); err != nil || head == nil {
		return err
	}
	switch {
	case !s.cmd.Flags().Changed("slot"):
		return usagef("%s runs at 0x%08x only: --slot is missing", path, head.Load).
			withHint("say which slot lies there, and sign a build for each; --slot any where the chip shows each slot there")
	case im.Address != nil && *im.Address > head.Load:
		return usagef("--address 0x%08x: %s is linked to run at 0x%08x, which lies before it", *im.Address, path, head.Load)
	}
	_, err = fmt.Fprintf(s.cmd.OutOrStdout(), "%-17s 0x%08x\n", "linked to run at", head.Load)
	return err
}

func parseHardware(list []string) ([][]byte, error) {
	var out [][]byte
	for _, h := range list {
		b := []byte(h)
		if digits, ok := strings.CutPrefix(h, "0x"); ok {
			var err error
			if b, err = hex.DecodeString(digits); err != nil {
				return nil, usagef("--hardware %s: 0x is followed by pairs of hex digits", h)
			}
		}
		if len(b) == 0 || len(b) > manifest.MaxHardwareLen {
			return nil, usagef("--hardware %s: it has 1 to %d bytes", h, manifest.MaxHardwareLen)
		}
		out = append(out, b)
	}
	if len(out) > manifest.MaxHardware {
		return nil, usagef("--hardware: %d at most", manifest.MaxHardware)
	}
	return out, nil
}
