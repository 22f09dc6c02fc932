package adminapi

import (
	"context"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// Policy is what a product takes and asks.
type Policy struct {
	Product    string   `json:"product"`
	SignedOnly bool     `json:"signed_only" doc:"unsigned images are refused on every way in"`
	AllowV1    bool     `json:"allow_v1" doc:"devices get its releases over v1, which has no signatures"`
	ByOperator bool     `json:"by_operator" doc:"false: a key list or a signed release made it signed"`
	Rollouts   bool     `json:"rollouts_only,omitempty" doc:"its releases are for nobody but by rollouts, the first one included"`
	Signers    []string `json:"signers,omitempty" doc:"names of the release keys that may sign; absent: all that the key list names"`
	Assurance  string   `json:"least_assurance" doc:"of devices that are served" enum:"none,shared,own"`
	Wire       string   `json:"least_wire" doc:"that devices speak" enum:"v1,mac-only,signed"`
	Confirm    string   `json:"confirm" doc:"trial: only devices whose bootloader goes back by itself; contact: and only releases that want contact before they are confirmed" enum:"any,trial,contact"`
	Chunks     []int    `json:"chunk_sizes,omitempty" doc:"bytes, the default first; absent: any"`
	Hardware   []string `json:"hardware,omitempty" doc:"that there is of the product; absent: any"`
}

// policy is a product as the API shows it.
func (s *server) policy(ctx context.Context, list []fleet.ProductPolicy) ([]Policy, error) {
	without, err := s.V1Policies.WithoutV1(ctx)
	if err != nil {
		return nil, err
	}
	var only []string
	if s.RolloutPolicies != nil {
		if only, err = s.RolloutPolicies.ByRollout(ctx); err != nil {
			return nil, err
		}
	}
	out := make([]Policy, 0, len(list))
	for _, p := range list {
		t := p.Terms
		out = append(out, Policy{Product: p.Name, SignedOnly: p.SignedOnly, AllowV1: !without[p.Name], ByOperator: p.ByOperator, Rollouts: slices.Contains(only, p.Name),
			Signers: t.Signers, Chunks: t.Chunks, Hardware: t.Hardware, Assurance: or(string(t.Assurance), string(fleet.AssuranceNone)), Wire: or(string(t.Wire), string(fleet.WireV1)), Confirm: or(string(t.Confirm), string(fleet.ConfirmAny))})
	}
	return out, nil
}

func or(s, none string) string {
	if s == "" {
		return none
	}
	return s
}

type setPolicy struct {
	Product    string    `json:"product" maxLength:"64"`
	SignedOnly *bool     `json:"signed_only,omitempty"`
	AllowV1    *bool     `json:"allow_v1,omitempty"`
	Rollouts   *bool     `json:"rollouts_only,omitempty"`
	Signers    *[]string `json:"signers,omitempty" maxItems:"16" doc:"names of release keys; []: all that the key list names"`
	Assurance  *string   `json:"least_assurance,omitempty" enum:"none,shared,own"`
	Wire       *string   `json:"least_wire,omitempty" enum:"v1,mac-only,signed"`
	Confirm    *string   `json:"confirm,omitempty" enum:"any,trial,contact"`
	Chunks     *[]int    `json:"chunk_sizes,omitempty" maxItems:"16" doc:"bytes, the default first; []: any"`
	Hardware   *[]string `json:"hardware,omitempty" maxItems:"64" doc:"a push for other hardware is refused; []: any"`
}

func (b *setPolicy) terms() fleet.TermsChange {
	c := fleet.TermsChange{Signers: b.Signers, Chunks: b.Chunks, Hardware: b.Hardware}
	if b.Assurance != nil {
		a := fleet.Assurance(*b.Assurance)
		c.Assurance = &a
	}
	if b.Wire != nil {
		w := fleet.Wire(*b.Wire)
		c.Wire = &w
	}
	if b.Confirm != nil {
		f := fleet.Confirm(*b.Confirm)
		c.Confirm = &f
	}
	return c
}

func (s *server) policies() {
	type policiesOutput struct {
		Body struct {
			Policies []Policy `json:"policies"`
		}
	}
	huma.Register(s.api, op("list-policies", "GET", "/policies", "What products take; those that are not named take unsigned images"), func(ctx context.Context, _ *empty) (*policiesOutput, error) {
		list, err := s.Policies.ListPolicies(ctx)
		o := &policiesOutput{}
		if err == nil {
			o.Body.Policies, err = s.policy(ctx, list)
		}
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return o, nil
	})
	type policyInput struct{ Body setPolicy }
	type policyOutput struct{ Body Policy }
	huma.Register(s.api, op("set-policy", "POST", "/policies", "Say what a product takes and asks"), func(ctx context.Context, in *policyInput) (*policyOutput, error) {
		err := s.setPolicy(ctx, &in.Body)
		var p fleet.ProductPolicy
		if err == nil {
			p, err = s.Policies.Policy(ctx, in.Body.Product)
		}
		var list []Policy
		if err == nil {
			list, err = s.policy(ctx, []fleet.ProductPolicy{p})
		}
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &policyOutput{list[0]}, nil
	})
}

// setPolicy checks all that is said before it does any of it.
func (s *server) setPolicy(ctx context.Context, b *setPolicy) error {
	if err := fleet.ValidateProduct(b.Product); err != nil {
		return err
	}
	change := b.terms()
	if b.SignedOnly == nil && b.AllowV1 == nil && b.Rollouts == nil && change.Empty() {
		return fleet.Errorf(fleet.CodeInvalid, "nothing is said of %s: name signed_only, allow_v1, rollouts_only, signers, least_assurance, least_wire, confirm, chunk_sizes or hardware", b.Product)
	}
	if _, err := change.Apply(fleet.Terms{}); err != nil {
		return err
	}
	if b.Signers != nil {
		if err := s.checkSigners(ctx, b.Product, *b.Signers); err != nil {
			return err
		}
	}
	if b.SignedOnly != nil {
		if err := s.Policies.SetPolicy(ctx, b.Product, *b.SignedOnly, s.Now()); err != nil {
			return err
		}
	}
	if b.AllowV1 != nil {
		if err := s.V1Policies.AllowV1(ctx, b.Product, *b.AllowV1, s.Now()); err != nil {
			return err
		}
	}
	if b.Rollouts != nil {
		if err := s.RolloutPolicies.OnlyByRollout(ctx, b.Product, *b.Rollouts, s.Now()); err != nil {
			return err
		}
	}
	if change.Empty() {
		return nil
	}
	return s.Policies.SetTerms(ctx, b.Product, change, s.Now())
}

// checkSigners refuses names that would leave nobody who can sign: by the newest key
// list each may release for the product, and there are as many as its threshold asks for.
func (s *server) checkSigners(ctx context.Context, product string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	list, err := s.keyList(ctx)
	if err != nil {
		return err
	}
	var p *release.Product
	if list != nil {
		p = list.Product(product)
	}
	if p == nil {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: "the server's key list does not name " + product + ": nobody may sign for it",
			Hint: "'runnel keys product' puts it into the list, 'runnel keys publish' gives the list to the server"}
	}
	var may []string
	for i := range list.Keys {
		if k := &list.Keys[i]; k.Roles&manifest.RoleRelease != 0 && k.SignsFor(product) {
			may = append(may, release.KeyName(k.Public))
		}
	}
	for _, n := range names {
		if !slices.Contains(may, n) {
			return &fleet.Error{Code: fleet.CodeInvalid, Message: "the newest key list has no release key " + fleet.CleanText(n, 32) + " for " + product, Hint: "it has " + strings.Join(may, ", ")}
		}
	}
	if len(names) < p.Threshold {
		return fleet.Errorf(fleet.CodeInvalid, "%d keys have to sign a release of %s, and %d would be left that may", p.Threshold, product, len(names))
	}
	return nil
}
