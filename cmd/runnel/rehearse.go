package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/release"
)

func newKeysRehearseCmd() *cobra.Command {
	r := &rehearsal{}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rehearse DIR",
		Short: "A drill: revoke the release key on virtual boards",
		Long: `Runs, with the key list and the keys of DIR, what a stolen release key would ask for:
on virtual boards with the updater of a real one, and a server, all in memory. It
shows that a board takes what the release key signs; that it refuses it once a list
revokes the key; that one that slept through two exchanges of all roots finds its way;
and what a thief can still do to a board that has not heard of it.

It opens as many root keys as must sign a list, and as many release keys as the
product asks for: whoever runs it knows that they are there, fit, and can be opened.
Nothing is written, and nothing that is signed here leaves the memory. --dry does it
with stand-ins for all keys instead, and opens none.

Exit status 1 if any step is not as it should be. --json prints {"ok","product",
"list_version","dry","steps":[{"step","ok","text"}]}.`,
		Example: `  runnel keys rehearse keys
  runnel keys rehearse keys --product acme/pump --root-key /media/stick/root-1.key
  runnel keys rehearse keys --dry --json`,
		Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.dry && len(r.rootKeys)+len(r.releaseKeys) > 0 {
				return usagef("--dry opens no keys: --root-key and --release-key do not go with it")
			}
			r.dir = args[0]
			if err := r.open(cmd); err != nil {
				return err
			}
			r.out, r.asJSON = cmd.OutOrStdout(), asJSON
			return r.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.product, "product", "", "the `product` (default: the only one of the list)")
	f.StringArrayVar(&r.rootKeys, "root-key", nil, "`file` of a root key; may be repeated (default: those in DIR, as many as are needed)")
	f.StringArrayVar(&r.releaseKeys, "release-key", nil, "`file` of a release key; may be repeated, the first is the one that is stolen (default: those in DIR)")
	f.BoolVar(&r.dry, "dry", false, "use stand-ins for all keys, and open none")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	r.passphrases.flags(cmd)
	return cmd
}

// rehearsal is one drill.
type rehearsal struct {
	listChange  // for its passphrases and its way to root keys
	releaseKeys []string
	product     string
	dry, asJSON bool
	out         io.Writer

	now   drillList
	p     *release.Product
	roots []release.Signer // m
	keys  []release.Signer // as many as the product asks for; the first is stolen
	steps []drillStep
}

// drillStep is one step and whether it went as it should.
type drillStep struct {
	Step string `json:"step"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// open reads the list and opens the keys.
func (r *rehearsal) open(cmd *cobra.Command) (err error) {
	if r.held, err = readList(filepath.Join(r.dir, listFile)); err != nil {
		return err
	}
	l := r.held.List
	if r.product == "" {
		if len(l.Products) != 1 {
			return usagef("--product is missing").withHint("the key list names %d products", len(l.Products))
		}
		r.product = l.Products[0].Name
	}
	if r.p = l.Product(r.product); r.p == nil {
		return hinted(fmt.Errorf("the key list does not name the product %s", r.product), "'runnel keys list %s' shows which it names", r.dir)
	}
	r.now = drillList{l, r.held.Envelope}
	if r.dry {
		return r.standIns(cmd.Context())
	}
	if r.roots, err = r.rootSigners(cmd, nil); err != nil {
		var h *hintedError
		if errors.As(err, &h) && len(r.rootKeys) == 0 {
			h.hint += ", or rehearse with stand-ins: --dry"
		}
		return err
	}
	if len(r.roots) < l.M {
		return hinted(fmt.Errorf("%d of the %d root keys that must sign are here", len(r.roots), l.M), "name them with --root-key, or rehearse with stand-ins: --dry")
	}
	r.roots = r.roots[:l.M]
	return r.openReleaseKeys(cmd)
}

func (r *rehearsal) openReleaseKeys(cmd *cobra.Command) error {
	paths := r.releaseKeys
	if len(paths) == 0 {
		pubs, err := filepath.Glob(filepath.Join(r.dir, "*.pub"))
		if err != nil {
			return err
		}
		for _, p := range pubs {
			public, err := onePublic(p)
			key := strings.TrimSuffix(p, ".pub") + ".key"
			if _, e := os.Stat(key); err == nil && e == nil && len(paths) < r.p.Threshold && r.maySign(public) {
				paths = append(paths, key)
			}
		}
	}
	for _, p := range paths {
		key, err := r.openKey(cmd, p)
		if err != nil {
			return err
		}
		s := release.NewKeySigner(key)
		if !r.maySign(s.Public()) || slices.ContainsFunc(r.keys, func(o release.Signer) bool { return o.Public().Equal(s.Public()) }) {
			return fmt.Errorf("%s is no release key that the list names for %s, or is named twice", p, r.product)
		}
		r.keys = append(r.keys, s)
	}
	if len(r.keys) < r.p.Threshold {
		return hinted(fmt.Errorf("%d of the %d release keys that %s asks for are here", len(r.keys), r.p.Threshold, r.product),
			"name them with --release-key, or rehearse with stand-ins: --dry")
	}
	r.keys = r.keys[:r.p.Threshold]
	return nil
}

func (r *rehearsal) maySign(public ed25519.PublicKey) bool {
	k := r.held.List.Key(public)
	return k != nil && k.Roles&manifest.RoleRelease != 0 && k.SignsFor(r.product)
}

// standIns puts new keys in the place of all in the list, and has those sign.
func (r *rehearsal) standIns(ctx context.Context) error {
	l := r.held.List.Clone()
	for i := range l.Roots {
		s, public, err := standIn()
		if err != nil {
			return err
		}
		if l.Roots[i] = public; len(r.roots) < l.M {
			r.roots = append(r.roots, s)
		}
	}
	for i := range l.Keys {
		s, public, err := standIn()
		if err != nil {
			return err
		}
		k := &l.Keys[i]
		if k.Public = public; k.Roles&manifest.RoleRelease != 0 && k.SignsFor(r.product) && len(r.keys) < r.p.Threshold {
			r.keys = append(r.keys, s)
		}
	}
	if len(r.keys) < r.p.Threshold {
		return fmt.Errorf("the list has %d release keys for %s, which asks for %d: nothing could be signed", len(r.keys), r.product, r.p.Threshold)
	}
	r.p = l.Product(r.product)
	var err error
	r.now, err = sealDrillList(ctx, l, r.roots...)
	return err
}

// run does the steps, and says how they went.
func (r *rehearsal) run(ctx context.Context) error {
	l := r.now.list
	if !r.asJSON {
		fmt.Fprintf(r.out, "%s: key list version %d, %d of %d roots sign it; %s asks for %d of its release keys\n%s\n\n", r.dir, l.Version, l.M, len(l.Roots),
			r.product, r.p.Threshold, yes(r.dry, "a dry run: stand-ins for all keys, yours were not opened", "your keys, virtual boards; nothing is written"))
	}
	broken := r.drill(ctx)
	failed := 0
	for _, s := range r.steps {
		if !s.OK {
			failed++
		}
	}
	if r.asJSON {
		if err := printJSON(r.out, struct {
			OK      bool        `json:"ok"`
			Product string      `json:"product"`
			Version uint32      `json:"list_version"`
			Dry     bool        `json:"dry"`
			Steps   []drillStep `json:"steps"`
		}{broken == nil && failed == 0, r.product, l.Version, r.dry, append([]drillStep{}, r.steps...)}); err != nil {
			return err
		}
	}
	switch {
	case broken != nil:
		return fmt.Errorf("the rehearsal broke off: %w", broken)
	case failed > 0:
		return fmt.Errorf("%d of %d steps went otherwise than they should", failed, len(r.steps))
	}
	switch {
	case r.asJSON:
	case r.dry:
		fmt.Fprintf(r.out, "\nall as it should be, with stand-ins; that your own keys can be opened is not shown by it\n")
	default:
		fmt.Fprintf(r.out, "\nall as it should be. In earnest: runnel keys revoke %s %s, then give every server the new list\n", r.dir, release.KeyName(r.keys[0].Public()))
	}
	return nil
}

// say notes a step.
func (r *rehearsal) say(step string, ok bool, format string, args ...any) {
	s := drillStep{Step: step, OK: ok, Text: fmt.Sprintf(format, args...)}
	r.steps = append(r.steps, s)
	if !r.asJSON {
		fmt.Fprintf(r.out, "%d. %-6s %s\n          %s\n", len(r.steps), yes(ok, "ok", "NOT OK"), s.Step, s.Text)
	}
}

// drill is the story. An error is a step that could not be done at all.
func (r *rehearsal) drill(ctx context.Context) error {
	stolen := release.KeyName(r.keys[0].Public())
	one, err := newDrillRelease(ctx, r.p, drillImage, 1, r.keys...)
	if err != nil {
		return err
	}
	bad, err := newDrillRelease(ctx, r.p, drillImage, 2, r.keys...)
	if err != nil {
		return err
	}
	d, err := newDrillBoard(r.now.list, r.product)
	if err != nil {
		return err
	}
	d.server.serve(r.now)
	got, err := d.run(ctx, one)
	if err != nil {
		return err
	}
	r.say("a board with the present list is offered a release signed by "+stolen+yes(len(r.keys) > 1, " and others", ""),
		got.confirmed && got.lists == 1, "%s", got)

	revoked, heir, err := r.revoke(ctx)
	if err != nil {
		return err
	}
	d.server.serve(r.now, revoked)
	if got, err = d.run(ctx, bad); err != nil {
		return err
	}
	r.say(fmt.Sprintf("list %d revokes %s; the board is offered a newer release by it", revoked.list.Version, stolen),
		!got.confirmed && got.lists == 1 && got.refused == device.ReasonSignature, "%s", got)
	next, err := newDrillRelease(ctx, r.p, drillImage, 3, append([]release.Signer{heir}, r.keys[1:]...)...)
	if err != nil {
		return err
	}
	if got, err = d.run(ctx, next); err != nil {
		return err
	}
	r.say("the same board is offered one by the key that took its place", got.confirmed, "%s", got)
	if err := r.sleeper(ctx, one); err != nil {
		return err
	}
	return r.theft(ctx, revoked, bad)
}

// revoke is the next list: without the stolen key, with a stand-in for it.
func (r *rehearsal) revoke(ctx context.Context) (drillList, release.Signer, error) {
	heir, public, err := standIn()
	if err != nil {
		return drillList{}, nil, err
	}
	l := r.now.list.Clone()
	l.Version++
	l.Key(r.keys[0].Public()).Public = public
	revoked, err := sealDrillList(ctx, l, r.roots...)
	return revoked, heir, err
}

// rotate is a list of the next generation: as many new roots as its signatures have
// room for. signers are those that m of the roots before sign with.
func rotate(ctx context.Context, l *release.KeyList, signers []release.Signer) (drillList, []release.Signer, error) {
	next := l.Clone()
	next.Version++
	next.Generation++
	// Old and new quorum together must fit; a root that stays counts for both.
	stays := max(0, 2*l.M-manifest.MaxSignatures)
	next.Roots = nil
	own := slices.Clone(signers[:stays])
	for _, s := range own {
		next.Roots = append(next.Roots, s.Public())
	}
	sign := slices.Clone(signers)
	for range max(1, len(l.Roots)-stays) {
		s, public, err := standIn()
		if err != nil {
			return drillList{}, nil, err
		}
		if next.Roots = append(next.Roots, public); len(own) < l.M {
			own, sign = append(own, s), append(sign, s)
		}
	}
	out, err := sealDrillList(ctx, next, sign...)
	return out, own, err
}

// sleeper: a board that was in a drawer while all roots were exchanged, twice.
func (r *rehearsal) sleeper(ctx context.Context, offer *drillRelease) error {
	second, roots, err := rotate(ctx, r.now.list, r.roots)
	if err != nil {
		return err
	}
	third, _, err := rotate(ctx, second.list, roots)
	if err != nil {
		return err
	}
	d, err := newDrillBoard(r.now.list, r.product)
	if err != nil {
		return err
	}
	d.server.serve(r.now)
	if _, err := d.run(ctx, nil); err != nil {
		return err
	}
	d.server.serve(r.now, second, third)
	got, err := d.run(ctx, offer)
	if err != nil {
		return err
	}
	r.say(fmt.Sprintf("a board slept while roots were exchanged twice; the server has generation %d", third.list.Generation),
		got.confirmed && got.lists == 2, "it went over %d lists, then %s", got.lists, got)
	return nil
}

// theft: what the list that revokes a key can't do for those who never saw it.
func (r *rehearsal) theft(ctx context.Context, revoked drillList, bad *drillRelease) error {
	d, err := newDrillBoard(r.now.list, r.product)
	if err != nil {
		return err
	}
	d.server.serve(r.now)
	alone := bad
	if len(r.keys) > 1 {
		if alone, err = newDrillRelease(ctx, r.p, drillImage, 2, r.keys[0]); err != nil {
			return err
		}
	}
	got, err := d.run(ctx, alone)
	if err != nil {
		return err
	}
	step := "a thief with the key, and a server that keeps the new list back, meet a board that never saw it"
	if len(r.keys) > 1 {
		r.say(step, !got.confirmed && got.refused == device.ReasonSignature, "%s; one stolen key of %d is not enough", got, len(r.keys))
	} else {
		r.say(step, got.confirmed, "%s: no list helps who has not seen it; two keys would", got)
	}
	d.server.serve(r.now, revoked)
	worse, err := newDrillRelease(ctx, r.p, drillImage, 4, r.keys[0])
	if err != nil {
		return err
	}
	if got, err = d.run(ctx, worse); err != nil {
		return err
	}
	r.say("the same board hears of the new list, and the thief comes again", !got.confirmed && got.lists == 1 && got.refused == device.ReasonSignature, "%s", got)
	return nil
}
