"""Every release onto every sled: collect what is where, plan what is missing, execute the plan."""
