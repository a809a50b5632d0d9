# The hook by which npm's own install step builds the native half: one action that runs cmake-js on CMakeLists.txt.
{
  "targets": [
    {
      "target_name": "virt_run",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake-js",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/cmake/Release/virt_run.node"],
          "action": ["node", "tools/build-native.mjs"]
        }
      ]
    }
  ]
}
