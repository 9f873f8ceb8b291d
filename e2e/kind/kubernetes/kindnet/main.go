// The network of a kind cluster whose own (kindnet) comes as an image that cannot be pulled.
// It does what that does, network policies aside: it tells containerd how to wire pods (a veth
// pair each, addresses from the node's share), keeps a route to the pods of every other node,
// and hides pods behind the node's address where they leave the cluster.
//
// It runs on every node, in the node's network namespace, and follows the Node objects; so
// routes come back after a restart of the node, also with another address.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	configuration = "/etc/cni/net.d/10-kindnet.conflist"
	// However quiet the API server is, somebody may have taken a route away.
	period = 10 * time.Second
)

// What this node is told by its pod's environment.
type settings struct {
	nodeIP     string
	podSubnets []string
	server     string
	// The rules that are in force, so that they are not written anew at every look.
	rules string
}

func main() {
	own := &settings{
		nodeIP:     os.Getenv("HOST_IP"),
		podSubnets: strings.Split(os.Getenv("POD_SUBNET"), ","),
		server:     os.Getenv("CONTROL_PLANE_ENDPOINT"),
	}
	if err := run(context.Background(), own); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, own *settings) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	// kube-proxy may not have made the Service of the API server yet.
	if own.server != "" {
		config.Host = "https://" + own.server
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	factory := informers.NewSharedInformerFactory(client, 0)
	nodes := factory.Core().V1().Nodes()
	wake := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	if _, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { wake() },
		UpdateFunc: func(any, any) { wake() },
		DeleteFunc: func(any) { wake() },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	for {
		select {
		case <-changed:
		case <-time.After(period):
		}
		all, err := nodes.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		for _, node := range all {
			if err := own.meet(node); err != nil {
				log.Printf("node %s: %v", node.Name, err)
			}
		}
	}
}

// Wires this node, or finds the way to another.
func (own *settings) meet(node *corev1.Node) error {
	addresses := internal(node)
	mine := false
	for _, address := range addresses {
		mine = mine || address.String() == own.nodeIP
	}
	if !mine {
		return routes(node.Spec.PodCIDRs, addresses)
	}
	if len(node.Spec.PodCIDRs) == 0 {
		return fmt.Errorf("has no pod subnet yet")
	}
	if err := own.hide(node.Spec.PodCIDRs); err != nil {
		return err
	}
	return wire(node.Spec.PodCIDRs)
}

func internal(node *corev1.Node) []net.IP {
	var found []net.IP
	for _, address := range node.Status.Addresses {
		if ip := net.ParseIP(address.Address); address.Type == corev1.NodeInternalIP && ip != nil {
			found = append(found, ip)
		}
	}
	return found
}

func routes(subnets []string, via []net.IP) error {
	for _, text := range subnets {
		_, subnet, err := net.ParseCIDR(text)
		if err != nil {
			return err
		}
		for _, gateway := range via {
			if (gateway.To4() == nil) != (subnet.IP.To4() == nil) {
				continue
			}
			if err := netlink.RouteReplace(&netlink.Route{Dst: subnet, Gw: gateway}); err != nil {
				return fmt.Errorf("route to %s by %s: %w", subnet, gateway, err)
			}
		}
	}
	return nil
}

// Pods that leave the cluster do so with the node's address: nobody outside knows theirs.
func (own *settings) hide(subnets []string) error {
	rules := "table inet kindnet\ndelete table inet kindnet\ntable inet kindnet {\n chain leave {\n" +
		"  type nat hook postrouting priority srcnat; policy accept;\n"
	for _, subnet := range subnets {
		family := "ip"
		if strings.Contains(subnet, ":") {
			family = "ip6"
		}
		for _, all := range own.podSubnets {
			if strings.Contains(all, ":") == (family == "ip6") {
				rules += fmt.Sprintf("  %s saddr %s %s daddr != %s fib daddr type != local masquerade\n", family, subnet, family, all)
			}
		}
	}
	rules += " }\n}\n"
	if rules == own.rules {
		return nil
	}
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, said)
	}
	own.rules = rules
	return nil
}

// The file is replaced as a whole, and only if it is to say something else.
func wire(subnets []string) error {
	ranges, ways := []any{}, []any{}
	for _, subnet := range subnets {
		ranges = append(ranges, []any{map[string]string{"subnet": subnet}})
		all := "0.0.0.0/0"
		if strings.Contains(subnet, ":") {
			all = "::/0"
		}
		ways = append(ways, map[string]string{"dst": all})
	}
	text, err := json.Marshal(map[string]any{
		"cniVersion": "0.3.1",
		"name":       "kindnet",
		"plugins": []any{
			map[string]any{
				"type": "ptp", "ipMasq": false, "mtu": 1500,
				"ipam": map[string]any{"type": "host-local", "dataDir": "/run/cni-ipam-state", "routes": ways, "ranges": ranges},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	})
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(configuration); err == nil && string(old) == string(text) {
		return nil
	}
	if err := os.WriteFile(configuration+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(configuration+".new", configuration)
}
