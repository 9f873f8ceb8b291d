# Terraform (from 1.4) and OpenTofu: `terraform destroy` releases the load balancers of a cluster
# before it destroys the cluster.
#
# Terraform destroys what depends on something before that something. So this resource depends on
# everything that the controller needs while it deletes load balancers: the cluster, its nodes, the
# release of the chart, the IAM role, the network.
#
# Tried: `terraform apply` and `destroy` of this file (Terraform 1.11) with a stand-in for the cluster:
# the order, and that a teardown that fails keeps the cluster. Not tried: with real resources of AWS.

variable "kubeconfig" {
  description = "A kubeconfig of the cluster, on the machine that runs Terraform"
  type        = string
}

resource "terraform_data" "ballast_teardown" {
  # A destroy-time provisioner can only use what the resource itself has stored.
  input = {
    kubeconfig = var.kubeconfig
  }

  # Replace these with your own resources.
  depends_on = [
    terraform_data.cluster, # such as aws_eks_cluster.this, aws_eks_node_group.this
    # helm_release.ballast,
    # aws_iam_role_policy_attachment.ballast,
    # module.vpc,
  ]

  provisioner "local-exec" {
    when    = destroy
    command = "ballast teardown --wait --yes --timeout 15m --reason 'terraform destroy' --lease-namespace ballast-system"
    environment = {
      KUBECONFIG = self.output.kubeconfig
    }
  }
}

# The stand-in for a cluster: delete it.
resource "terraform_data" "cluster" {
  provisioner "local-exec" {
    when    = destroy
    command = "echo the cluster is destroyed"
  }
}
